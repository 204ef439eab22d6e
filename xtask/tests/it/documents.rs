//! `cargo xtask documents`.

use std::fs;

use testbed::paths;

use crate::tool::Workspace;

#[tokio::test]
async fn the_generated_files_in_docs_are_fresh() {
    let workspace = Workspace::new();
    fs::create_dir(workspace.path("docs")).unwrap();
    let tool = workspace.start(&["documents"]);
    let (status, printed) = tool.wait().await;
    assert!(status.success(), "{printed}");
    for file in ["docs/orders.postman_collection.json", "docs/openapi.json", "docs/asyncapi.json"] {
        let generated = fs::read_to_string(workspace.path(file)).unwrap();
        let kept = fs::read_to_string(paths::workspace().join(file)).unwrap();
        assert!(generated == kept, "run `cargo xtask documents` and commit {file}");
    }
}
