//! Exploring a model.

use std::{fmt::Debug, hash::Hash};

use stateright::{Checker, Model};

/// Visits every state that can be reached, and fails with a path to one that breaks a property.
pub(crate) fn explore<M>(model: M)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq + Send + Sync,
{
    // With one thread: the tests beside this one use the other processors.
    let checker = model.checker().spawn_bfs().join();
    println!("{} states, {} steps deep", checker.unique_state_count(), checker.max_depth());
    checker.assert_properties();
}

/// Fails unless this story is a shortest one that breaks the model's only property, or shows what it says is possible.
pub(crate) fn expect_story<M>(model: M, story: &[M::Action])
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq + Send + Sync,
{
    // With one thread and one property the path that is found first is a shortest one.
    let properties = model.properties();
    assert_eq!(properties.len(), 1, "a story is about one property");
    let name = properties[0].name;
    let checker = model.checker().spawn_bfs().join();
    let found = checker.assert_any_discovery(name).into_actions();
    assert_eq!(found.len(), story.len(), "the shortest is {found:#?}");
    checker.assert_discovery(name, story.to_vec());
}
