//! The files of the live page, built into the program.
//!
//! They are kept in `src/telemetry/admin/page`, plain HTML, CSS and JavaScript that no tool has to
//! build, and need nothing from elsewhere; a browser is told to load nothing else.

use bytes::Bytes;
use http::Response;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http_body_util::Full;

/// A file as a browser gets it.
pub(super) struct PageFile {
    path: &'static str,
    content_type: &'static str,
    text: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// All files of the page.
static FILES: [PageFile; 8] = [
    file("/", HTML, include_str!("page/page.html")),
    file("/page.css", CSS, include_str!("page/page.css")),
    file("/tokens.css", CSS, include_str!("page/tokens.css")),
    file("/page.js", JAVASCRIPT, include_str!("page/page.js")),
    file("/draw.js", JAVASCRIPT, include_str!("page/draw.js")),
    file("/figures.js", JAVASCRIPT, include_str!("page/figures.js")),
    file("/state.js", JAVASCRIPT, include_str!("page/state.js")),
    file("/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
];

const fn file(path: &'static str, content_type: &'static str, text: &'static str) -> PageFile {
    PageFile {
        path,
        content_type,
        text,
    }
}

/// Header fields of each file. They tell the browser to load from this origin only, to trust the
/// content type, to show the page in no frame, and to ask again for each visit.
const GUARDS: [(HeaderName, &str); 5] = [
    (CONTENT_SECURITY_POLICY, "default-src 'self'"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    (CACHE_CONTROL, "no-store"),
];

/// Finds the file at this path, if there is one.
pub(super) fn find(path: &str) -> Option<&'static PageFile> {
    FILES.iter().find(|file| file.path == path)
}

impl PageFile {
    /// Makes the answer that a browser gets.
    pub(super) fn answer(&self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::from(self.text));
        let content_type = HeaderValue::from_static(self.content_type);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, content_type);
        set_guards(headers);
        response
    }
}

/// Sets what a browser is told of everything that the page is made of.
pub(super) fn set_guards(headers: &mut HeaderMap) {
    for (name, value) in GUARDS {
        headers.insert(name, HeaderValue::from_static(value));
    }
}
