//! `cargo xtask postman`.

use std::fs;

use testbed::paths;

use crate::tool::Workspace;

#[tokio::test]
async fn the_collection_in_docs_is_the_one_that_the_api_document_gives() {
    let workspace = Workspace::new();
    fs::create_dir(workspace.path("docs")).unwrap();
    let tool = workspace.start(&["postman"]);
    let (status, said) = tool.wait().await;
    assert!(status.success(), "{said}");
    let file = "docs/orders.postman_collection.json";
    let generated = fs::read_to_string(workspace.path(file)).unwrap();
    let kept = fs::read_to_string(paths::workspace().join(file)).unwrap();
    assert!(generated == kept, "run `cargo xtask postman` and commit {file}");
}
