//! JSON Pointers (RFC 6901) into the tree of a record: finding, taking out, putting in.
//!
//! A place that is not there is an answer, never a fault: records of one stream need not be alike.

use super::value::{Member, Value};

/// A place in a record; without a token it is the record itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pointer(Vec<Box<str>>);

impl Pointer {
    /// `None` unless the text is empty or begins with `/`, and each `~` is followed by 0 or 1.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self(Vec::new()));
        }
        let tokens = text.strip_prefix('/')?.split('/').map(token);
        tokens.collect::<Option<_>>().map(Self)
    }

    pub(super) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `other` is a place within this one.
    pub(super) fn holds(&self, other: &Self) -> bool {
        other.0.len() > self.0.len() && other.0.starts_with(&self.0)
    }

    pub(super) fn find<'v, 'a>(&self, root: &'v Value<'a>) -> Option<&'v Value<'a>> {
        self.0
            .iter()
            .try_fold(root, |value, token| child(value, token))
    }

    pub(super) fn find_mut<'v, 'a>(&self, root: &'v mut Value<'a>) -> Option<&'v mut Value<'a>> {
        descend(root, &self.0)
    }

    /// The value that holds the place, and the place's name there; `None` for the record itself
    /// and where there is no such value.
    fn parent<'v, 'a>(&self, root: &'v mut Value<'a>) -> Option<(&'v mut Value<'a>, &str)> {
        let (last, above) = self.0.split_last()?;
        Some((descend(root, above)?, last))
    }

    /// The members of the object that the place is in, and the place's name there.
    pub(super) fn object<'v, 'a>(
        &self,
        root: &'v mut Value<'a>,
    ) -> Option<(&'v mut Vec<Member<'a>>, &str)> {
        match self.parent(root)? {
            (Value::Object(members), name) => Some((members, name)),
            _ => None,
        }
    }

    /// Takes the value out, and says at which index it was among its neighbours.
    pub(super) fn take<'a>(&self, root: &mut Value<'a>) -> Option<(Value<'a>, usize)> {
        match self.parent(root)? {
            (Value::Object(members), name) => {
                let at = members.iter().position(|member| member.name == name)?;
                Some((members.remove(at).value, at))
            }
            (Value::Array(items), name) => {
                let at = index(name).filter(|at| *at < items.len())?;
                Some((items.remove(at), at))
            }
            _ => None,
        }
    }

    /// Puts a value back to where [`take`](Self::take) found it.
    pub(super) fn put_back<'a>(&self, root: &mut Value<'a>, value: Value<'a>, at: usize) {
        match self.parent(root) {
            Some((Value::Object(members), name)) => {
                let name = name.to_owned().into();
                members.insert(at, Member { name, value });
            }
            Some((Value::Array(items), _)) => items.insert(at, value),
            _ => debug_assert!(false, "the value was taken from an object or an array"),
        }
    }

    /// Adds a value as RFC 6902 does: a member that is there is replaced, an item moves the ones
    /// behind it, `-` is behind the last. Gives it back where there is no place for it.
    pub(super) fn add<'a>(&self, root: &mut Value<'a>, value: Value<'a>) -> Result<(), Value<'a>> {
        if self.is_root() {
            *root = value;
            return Ok(());
        }
        match self.parent(root) {
            Some((Value::Object(members), name)) => set(members, name, value),
            Some((Value::Array(items), name)) => {
                let end = items.len();
                let at = if name == "-" { Some(end) } else { index(name) };
                match at.filter(|at| *at <= end) {
                    Some(at) => items.insert(at, value),
                    None => return Err(value),
                }
            }
            _ => return Err(value),
        }
        Ok(())
    }
}

/// Replaces the member of that name, or adds it as the last one.
fn set<'a>(members: &mut Vec<Member<'a>>, name: &str, value: Value<'a>) {
    match members.iter_mut().find(|member| member.name == name) {
        Some(member) => member.value = value,
        None => members.push(Member {
            name: name.to_owned().into(),
            value,
        }),
    }
}

fn child<'v, 'a>(value: &'v Value<'a>, token: &str) -> Option<&'v Value<'a>> {
    match value {
        Value::Object(members) => {
            let member = members.iter().find(|member| member.name == token)?;
            Some(&member.value)
        }
        Value::Array(items) => items.get(index(token)?),
        _ => None,
    }
}

fn descend<'v, 'a>(mut value: &'v mut Value<'a>, tokens: &[Box<str>]) -> Option<&'v mut Value<'a>> {
    for token in tokens {
        value = match value {
            Value::Object(members) => {
                let mut members = members.iter_mut();
                &mut members.find(|member| *member.name == **token)?.value
            }
            Value::Array(items) => items.get_mut(index(token)?)?,
            _ => return None,
        };
    }
    Some(value)
}

/// A token without its escapes.
fn token(text: &str) -> Option<Box<str>> {
    let mut tildes = text.split('~').skip(1);
    let is_sound = tildes.all(|rest| rest.starts_with(['0', '1']));
    is_sound.then(|| text.replace("~1", "/").replace("~0", "~").into())
}

/// The index of an item: digits, and no zero before them.
fn index(token: &str) -> Option<usize> {
    let is_index = token == "0" || !token.starts_with(['0', '+']);
    token.parse().ok().filter(|_| is_index)
}

#[cfg(test)]
mod tests {
    use super::super::parse::parse;
    use super::*;

    fn pointer(text: &str) -> Pointer {
        Pointer::parse(text).unwrap()
    }

    /// The examples of RFC 6901, section 5.
    #[test]
    fn a_pointer_leads_to_what_the_standard_says() {
        let text = br#"{"foo":["bar","baz"],"":0,"a/b":1,"c%d":2,"e^f":3,"g|h":4,"i\\j":5,"k\"l":6," ":7,"m~n":8}"#;
        let record = parse(text).unwrap();
        let found = [
            ("/foo/0", "\"bar\""),
            ("/", "0"),
            ("/a~1b", "1"),
            ("/c%d", "2"),
            ("/e^f", "3"),
            ("/g|h", "4"),
            ("/i\\j", "5"),
            ("/k\"l", "6"),
            ("/ ", "7"),
            ("/m~0n", "8"),
        ];
        for (path, json) in found {
            let mut written = Vec::new();
            pointer(path).find(&record).unwrap().write(&mut written);
            assert_eq!(String::from_utf8(written).unwrap(), json, "{path}");
        }
        assert_eq!(pointer("").find(&record), Some(&record));
        for nowhere in [
            "/foo/2", "/foo/-", "/foo/00", "/foo/+1", "/foo/0/1", "/bar", "/foo/ 1",
        ] {
            assert_eq!(pointer(nowhere).find(&record), None, "{nowhere}");
        }
        assert_eq!(pointer("/~01").0[0].as_ref(), "~1", "it is unescaped once");
    }

    #[test]
    fn what_is_no_pointer_is_none() {
        for text in ["a", "a/b", "/~", "/~2", "/a~", "~1"] {
            assert_eq!(Pointer::parse(text), None, "{text}");
        }
        assert!(pointer("/a").holds(&pointer("/a/b")) && !pointer("/a").holds(&pointer("/a")));
        assert!(!pointer("/a").holds(&pointer("/ab")), "tokens, not letters");
    }
}
