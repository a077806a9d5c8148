//! Summarizes a server's response in one readable line.

use serde::Deserialize;

use super::redact::Redactions;

/// Maximum length of a quotation from a server, in characters.
const MAX: usize = 300;

#[derive(Deserialize)]
struct ErrorBody {
    error_code: String,
    #[serde(default)]
    message: String,
}

/// Summarizes a body in one line: code and message of MLflow's errors, the title or the text of a page.
pub(super) fn summary(content_type: &str, body: &[u8], redactions: &Redactions) -> String {
    if let Ok(ErrorBody { error_code, message }) = serde_json::from_slice(body) {
        let detail = if message.trim().is_empty() { error_code } else { format!("{error_code}: {message}") };
        return shorten(&redactions.redact(&detail));
    }
    // The beginning is enough, and a page can be long.
    let beginning = String::from_utf8_lossy(&body[..body.len().min(8 << 10)]);
    let page = content_type.contains("html") || beginning.trim_start().starts_with('<');
    shorten(&redactions.redact(&if page { plain(&beginning) } else { beginning.into_owned() }))
}

/// Returns `text` on one line, with at most 300 characters.
pub(super) fn shorten(text: &str) -> String {
    let mut line = String::new();
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if line.chars().count() <= MAX {
        return line;
    }
    line.chars().take(MAX - 1).chain(['…']).collect()
}

/// Returns the title of a page, or its text.
fn plain(page: &str) -> String {
    let title = element(page, "title").map(strip).filter(|title| !title.trim().is_empty());
    title.unwrap_or_else(|| strip(page))
}

/// Returns the content of the first element with this name.
fn element<'a>(page: &'a str, name: &str) -> Option<&'a str> {
    // Lowercases ASCII only, so that positions stay the same.
    let lower = page.to_ascii_lowercase();
    let open = lower.find(&format!("<{name}"))?;
    let start = open + lower[open..].find('>')? + 1;
    let end = start + lower[start..].find(&format!("</{name}"))?;
    Some(&page[start..end])
}

/// Removes tags, scripts and styles from a page.
fn strip(page: &str) -> String {
    let mut text = String::new();
    let mut rest = page;
    while let Some(open) = rest.find('<') {
        text.push_str(&rest[..open]);
        text.push(' ');
        rest = &rest[open..];
        let skipped = ["script", "style"]
            .into_iter()
            .find(|name| rest.get(1..=name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name)));
        let end = skipped.map_or_else(|| ">".to_owned(), |name| format!("</{name}>"));
        let Some(close) = rest.to_ascii_lowercase().find(&end) else { return text };
        rest = &rest[close + end.len()..];
    }
    text.push_str(rest);
    unescape(&text)
}

fn unescape(text: &str) -> String {
    let entities = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")];
    entities.iter().fold(text.to_owned(), |text, (entity, meaning)| text.replace(entity, meaning))
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    #[test]
    fn a_page_is_summarized_by_its_title_or_its_text() {
        let table = [
            ("<!doctype html>\n<TITLE>502 Bad\nGateway</TITLE><h1>nginx</h1>", "502 Bad Gateway"),
            ("<html><style>a{}</style><title> </title><p>Log&nbsp;in &amp; go</p>", "Log&nbsp;in & go"),
            ("<script>var a = 1 < 2;</script>Denied", "Denied"),
            ("<unclosed", ""),
            ("", ""),
        ];
        for (page, line) in table {
            assert_eq!(
                summary("text/html; charset=utf-8", page.as_bytes(), &Redactions::default()),
                line,
                "{page:?}"
            );
        }
    }

    #[test]
    fn an_error_of_mlflow_is_summarized_by_code_and_message() {
        let error = br#"{"error_code": "INTERNAL_ERROR", "message": "", "sqlstate": "XXM00"}"#;
        assert_eq!(summary("application/json", error, &Redactions::default()), "INTERNAL_ERROR");
        let error = br#"{"error_code": "BAD_REQUEST", "message": "no\n good"}"#;
        assert_eq!(summary("application/json", error, &Redactions::default()), "BAD_REQUEST: no good");
    }

    #[test]
    fn long_text_is_truncated_at_a_character() {
        let line = shorten(&"ü ".repeat(1000));
        assert_eq!(line.chars().count(), MAX);
        assert!(line.ends_with('…'));
        assert_eq!(shorten(&"ü".repeat(MAX)).chars().count(), MAX);
    }

    proptest::proptest! {
        #[test]
        fn any_response_fits_on_one_line(page in "(<|>|</?title>|<script>|[a-zÜ\\s]){0,80}", html: bool) {
            let content_type = if html { "text/html" } else { "text/plain" };
            let line = summary(content_type, page.as_bytes(), &Redactions::default());
            proptest::prop_assert!(line.chars().count() <= MAX && !line.contains(char::is_control));
        }
    }
}
