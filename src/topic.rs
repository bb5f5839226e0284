//! Topics as MQTT has them: names, and filters that match some of them.
//!
//! The configuration reads filters, and the front door of AWS IoT Core asks them for the stream of
//! a topic. Sections are those of MQTT 5.0, <https://docs.oasis-open.org/mqtt/mqtt/v5.0/mqtt-v5.0.html>;
//! MQTT 3.1.1 says the same. A name comes as a path, percent-encoded, and is decoded once. Nothing
//! here has a state. A name is as long as its path, which the bound of a request's head bounds.

use crate::hex;

/// Why a text is no filter, as the rest of a sentence about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FilterError {
    #[error("has an empty topic filter")]
    Empty,
    #[error("has a topic filter with a NUL in it")]
    Nul,
    #[error("has a topic filter with a + beside other characters of its level")]
    Plus,
    #[error("has a topic filter with a # that is not the whole of its last level")]
    Hash,
}

/// A topic filter (section 4.7.1): levels, of which `+` stands for any one, and `#`, which is last,
/// for any number of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filter(Box<str>);

impl Filter {
    pub(crate) fn parse(text: &str) -> Result<Self, FilterError> {
        if text.is_empty() {
            return Err(FilterError::Empty);
        }
        if text.contains('\0') {
            return Err(FilterError::Nul);
        }
        let mut levels = text.split('/').peekable();
        while let Some(level) = levels.next() {
            let is_last = levels.peek().is_none();
            if level.contains('+') && level != "+" {
                return Err(FilterError::Plus);
            }
            if level.contains('#') && !(level == "#" && is_last) {
                return Err(FilterError::Hash);
            }
        }
        Ok(Self(text.into()))
    }

    /// Whether the filter matches this name. A wildcard at its beginning matches no name that begins
    /// with `$` (section 4.7.2).
    pub(crate) fn matches(&self, topic: &str) -> bool {
        debug_assert!(!topic.contains(['+', '#']), "a name has no wildcards");
        let begins_wild = self.0.starts_with(['+', '#']);
        if begins_wild && topic.starts_with('$') {
            return false;
        }
        let mut levels = topic.split('/');
        for wanted in self.0.split('/') {
            if wanted == "#" {
                // It stands for the level above it too.
                return true;
            }
            match levels.next() {
                Some(level) if wanted == "+" || wanted == level => {}
                _ => return false,
            }
        }
        levels.next().is_none()
    }
}

/// The name that a path is when it is decoded; `None` for what is no name of a topic: an empty one,
/// one with a wildcard or a NUL (section 4.7.3), one that is not UTF-8 or not soundly encoded.
pub(crate) fn name_of(path: &str) -> Option<String> {
    let name = decode(path)?;
    let is_name = !name.is_empty() && !name.contains(['+', '#', '\0']);
    is_name.then_some(name)
}

/// A part of a path without its percent-encoding (RFC 3986 section 2.1), which is taken off once;
/// `None` where a `%` is not followed by two digits, or the bytes are not UTF-8.
pub(crate) fn decode(path: &str) -> Option<String> {
    let mut bytes = path.bytes();
    let mut decoded = Vec::with_capacity(path.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => hex::digit(bytes.next()?)? << 4 | hex::digit(bytes.next()?)?,
            byte => byte,
        });
    }
    debug_assert!(decoded.len() <= path.len(), "nothing becomes longer");
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(filter: &str, topic: &str) -> bool {
        Filter::parse(filter).unwrap().matches(topic)
    }

    /// The examples of sections 4.7.1 to 4.7.3.
    #[test]
    fn filters_match_as_the_standard_says() {
        for (filter, topic) in [
            ("sport/tennis/player1/#", "sport/tennis/player1"),
            ("sport/tennis/player1/#", "sport/tennis/player1/ranking"),
            (
                "sport/tennis/player1/#",
                "sport/tennis/player1/score/wimbledon",
            ),
            ("sport/#", "sport"),
            ("#", "sport/tennis"),
            ("#", "/"),
            ("sport/tennis/+", "sport/tennis/player2"),
            ("sport/+", "sport/"),
            ("+/+", "/finance"),
            ("/+", "/finance"),
            ("+", "finance"),
            ("$SYS/#", "$SYS/a"),
            ("$SYS/monitor/+", "$SYS/monitor/Clients"),
            ("ACCOUNTS", "ACCOUNTS"),
            ("+/tennis/#", "sport/tennis"),
        ] {
            assert!(matches(filter, topic), "{filter} and {topic}");
        }
        for (filter, topic) in [
            ("sport/tennis/+", "sport/tennis/player1/ranking"),
            ("sport/+", "sport"),
            ("+", "/finance"),
            ("#", "$SYS/a"),
            ("+/monitor/Clients", "$SYS/monitor/Clients"),
            ("ACCOUNTS", "Accounts"),
            ("a/b", "a/b/"),
            ("a/b", "a"),
            ("sport/#", "sports"),
        ] {
            assert!(!matches(filter, topic), "{filter} and {topic}");
        }
    }

    #[test]
    fn a_filter_has_its_wildcards_where_they_may_stand() {
        for (text, error) in [
            ("", FilterError::Empty),
            ("a\0", FilterError::Nul),
            ("sport+", FilterError::Plus),
            ("a/+b/c", FilterError::Plus),
            ("++", FilterError::Plus),
            ("sport/tennis#", FilterError::Hash),
            ("sport/#/ranking", FilterError::Hash),
            ("##", FilterError::Hash),
            ("#/", FilterError::Hash),
        ] {
            assert_eq!(Filter::parse(text), Err(error), "{text}");
        }
        for text in ["+", "#", "/", "a/+/b/#", "+/+", " ", "$aws/rules/x"] {
            assert_eq!(&*Filter::parse(text).unwrap().0, text);
        }
    }

    #[test]
    fn a_name_is_decoded_once() {
        for (path, name) in [
            ("dt/plant/7", Some("dt/plant/7")),
            ("dt%2Fplant%2f7", Some("dt/plant/7")),
            ("a%252Fb", Some("a%2Fb")),
            ("%C3%A4", Some("\u{e4}")),
            ("a+b", None),
            ("a%2Bb", None),
            ("a%23b", None),
            ("a%00b", None),
            ("%ff", None),
            ("%c3", None),
            ("%", None),
            ("%2", None),
            ("%g0", None),
            ("%+1", None),
            ("", None),
        ] {
            assert_eq!(name_of(path).as_deref(), name, "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_name_is_a_filter_that_matches_itself_alone(name in "[a-z/$ ]{1,20}", other in "[a-z/$ ]{1,20}") {
            let filter = Filter::parse(&name).unwrap();
            prop_assert!(filter.matches(&name));
            prop_assert_eq!(filter.matches(&other), name == other);
        }

        #[test]
        fn what_is_encoded_is_decoded(name in "[^+#\0]{1,40}") {
            let encoded: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
            prop_assert_eq!(name_of(&encoded), Some(name));
        }
    }
}
