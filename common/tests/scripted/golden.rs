//! Tables of docs/reruns.md, between marks with the name of a forge.

/// The head of a table with a column for each way that the machine was launched.
pub fn head(launches: &[&str]) -> String {
    let columns: Vec<String> = launches.iter().map(|name| format!("launched {name}")).collect();
    let (columns, rule) = (columns.join(" | "), "---|".repeat(launches.len()));
    format!("| the job | attempt | {columns} |\n|---|---|{rule}\n")
}

/// Compares a table with the one that is checked in, or writes it there.
pub fn check(forge: &str, table: &str) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reruns.md");
    let kept = std::fs::read_to_string(path).unwrap();
    let (begin, end) = (format!("<!-- begin: {forge} -->\n"), format!("<!-- end: {forge} -->"));
    let (head, rest) = kept.split_once(&begin).unwrap();
    let (_, tail) = rest.split_once(&end).unwrap();
    let now = format!("{head}{begin}{table}{end}{tail}");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &now).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(path).unwrap(),
        now,
        "run `make golden` and look at the diff"
    );
}
