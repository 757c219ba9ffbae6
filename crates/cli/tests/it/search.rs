use crate::{mainstay, text, write};

#[test]
fn hits_are_printed_for_people_with_file_line_and_methods() {
    let (tree, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(tree.path(), "src/a.rs", "// first\nfn parse_header() {}\n// last\n");
    mainstay(&["index", text(tree.path()), "--data", text(data.path()), "--model", "static"]).ok();
    let found = mainstay(&["search", "parse_header", "--data", text(data.path()), "-C", "1"]).ok();
    assert!(found.out.starts_with("src/a.rs  [bm25 tantivy native semantic]"), "{}", found.out);
    assert!(
        found.out.contains("  1- // first\n  2: fn parse_header() {}\n  3- // last\n"),
        "{}",
        found.out
    );
    assert!(!found.out.contains('\u{1b}'), "no colours where nobody looks");
    let facets =
        mainstay(&["search", "parse_header", "--data", text(data.path()), "--facet", "language"]);
    assert!(facets.ok().out.contains("language  rust 1"));
    let none = mainstay(&["search", "qqqq", "--data", text(data.path()), "-m", "native"]);
    assert_eq!((none.code, none.out.as_str()), (1, ""));
}

#[test]
fn mistakes_on_the_command_line_are_told_with_what_is_known() {
    let data = tempfile::tempdir().unwrap();
    let unknown = mainstay(&["search", "x", "--data", text(data.path()), "--method", "bm26"]);
    assert_eq!(unknown.code, 2);
    assert!(unknown.err.contains("bm25, tantivy, native, semantic"), "{}", unknown.err);
    let missing = mainstay(&["search", "x", "--data", text(data.path())]);
    assert_eq!(missing.code, 3);
    assert!(missing.err.contains("mainstay index"), "{}", missing.err);
    let model = mainstay(&[
        "index",
        text(data.path()),
        "--data",
        text(data.path()),
        "--model",
        "folder:/nowhere",
    ]);
    assert_ne!(model.code, 0);
    assert!(model.err.contains("/nowhere"), "{}", model.err);
}
