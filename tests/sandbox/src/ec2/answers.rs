//! EC2's XML.

/// A refusal: HTTP status, code, message.
#[derive(Debug)]
pub struct Refusal(pub u16, pub &'static str, pub String);

/// The document of a refusal.
pub fn error(code: &str, message: &str) -> String {
    let (code, message) = (text("Code", code), text("Message", message));
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error>{code}{message}</Error></Errors><RequestID>sandbox</RequestID></Response>"
    )
}

/// The document of an answer.
pub fn document(action: &str, body: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{action}Response xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>sandbox</requestId>{body}</{action}Response>"
    )
}

/// One element with text.
pub fn text(name: &str, value: &str) -> String {
    let mut out = format!("<{name}>");
    for c in value.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            c => out.push(c),
        }
    }
    out + &format!("</{name}>")
}

/// One element with others.
pub fn group(name: &str, inner: &str) -> String {
    format!("<{name}>{inner}</{name}>")
}

/// A list of items.
pub fn items(name: &str, items: impl IntoIterator<Item = String>) -> String {
    let inner: String = items.into_iter().map(|item| group("item", &item)).collect();
    group(name, &inner)
}

/// `tagSet`
pub fn tags<'a>(tags: impl IntoIterator<Item = (&'a String, &'a String)>) -> String {
    items(
        "tagSet",
        tags.into_iter().map(|(key, value)| text("key", key) + &text("value", value)),
    )
}
