//! One page that needs nothing but a browser: its data, its style, its scripts and plotly.js are inside.
//!
//! Owns how data gets into a page without becoming markup; what a page shows is in `html/`, what it is made of in
//! [`crate::report`].

use std::io::{self, Write};

use plotly::Plot;
use serde::Serialize;

use crate::Error;

const STYLE: &str = include_str!("html/report.css");
const BODY: &str = include_str!("html/report.html");
const SCRIPTS: [&str; 3] =
    [include_str!("html/tables.js"), include_str!("html/graph.js"), include_str!("html/report.js")];

/// Nothing is fetched and nothing is sent, whatever a trace puts into the page. Without `unsafe-eval` plotly.js cannot draw
/// by WebGL: SVG takes the points of a graph as they are bounded, and is faster where there is no graphics card.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:";

/// A page that is being written: data first, for the scripts at its end read it.
pub(crate) struct Page<'a> {
    out: &'a mut dyn Write,
    bytes: u64,
}

impl<'a> Page<'a> {
    /// Begins a page; `title` may be anyone's text.
    pub(crate) fn begin(out: &'a mut dyn Write, title: &str) -> Result<Page<'a>, Error> {
        let mut page = Page { out, bytes: 0 };
        page.put("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n")?;
        page.put(&format!("<meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n"))?;
        page.put("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n")?;
        // or a browser would ask for favicon.ico
        page.put("<link rel=\"icon\" href=\"data:,\">\n")?;
        page.put(&format!("<title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{BODY}", escaped(title)))?;
        Ok(page)
    }

    /// Puts in what the scripts find by this id.
    pub(crate) fn data(&mut self, id: &str, value: &impl Serialize) -> Result<(), Error> {
        let json = serde_json::to_string(value).map_err(|e| Error::Draw(e.to_string()))?;
        self.put(&format!("<script type=\"application/json\" id=\"{id}\">"))?;
        self.put(&inert(&json))?;
        Ok(self.put("</script>\n")?)
    }

    /// Bytes so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Puts in the scripts; returns the bytes of the whole page.
    pub(crate) fn end(mut self) -> Result<u64, Error> {
        self.put("<script>")?;
        self.put(&plotly_js()?)?;
        self.put("</script>\n")?;
        for script in SCRIPTS {
            self.put("<script>\n")?;
            self.put(script)?;
            self.put("</script>\n")?;
        }
        self.put("</body>\n</html>\n")?;
        self.out.flush()?;
        Ok(self.bytes)
    }

    fn put(&mut self, text: &str) -> io::Result<()> {
        self.bytes += text.len() as u64;
        self.out.write_all(text.as_bytes())
    }
}

/// JSON in which nothing ends or begins an element. Outside of its strings these characters do not occur.
fn inert(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => out.push_str(&format!("\\u{:04x}", c as u32)),
            _ => out.push(c),
        }
    }
    out
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// plotly.js, without the MathJax that its crate puts beside it: half as much again, for formulas that no page has.
fn plotly_js() -> Result<String, Error> {
    let sources = Plot::offline_js_sources();
    let scripts = sources.split("<script").skip(1).filter_map(|s| s.split_once('>')?.1.split_once("</script>"));
    let mut found = scripts.map(|(script, _)| script).filter(|script| script.contains("* plotly.js v"));
    match (found.next(), found.next()) {
        (Some(script), None) => Ok(script.to_owned()),
        _ => Err(Error::Draw("the crate plotly has no single script that is plotly.js".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plotly_is_there_whole_and_mathjax_is_not() {
        let script = plotly_js().unwrap();
        assert!((3_000_000..6_000_000).contains(&script.len()), "{} bytes", script.len());
        assert!(script.contains("scatterlayer"));
        assert!(!script.contains("MathJax.Hub = ") && !script.contains("mathjax.org/mathjax"), "MathJax's own source");
        assert!(!script.to_lowercase().contains("</script"), "an end before the end");
    }

    #[test]
    fn text_in_data_stays_text() {
        let text = "</script><img src=x onerror=alert(1)>&amp;\u{2028}\u{2029}\u{7}\"\\";
        let mut out = Vec::new();
        let mut page = Page::begin(&mut out, text).unwrap();
        page.data("d", &[text]).unwrap();
        let bytes = page.end().unwrap();
        assert_eq!(bytes, out.len() as u64);
        let html = String::from_utf8(out).unwrap();
        assert!(!html.contains("<img"), "markup");
        let begin = html.find("id=\"d\">").unwrap() + 7;
        let json = html[begin..].split("</script>").next().unwrap();
        assert_eq!(serde_json::from_str::<[String; 1]>(json).unwrap(), [text], "and the same text");
    }
}
