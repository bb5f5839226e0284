//! The further headers of a record, beside its content type and its id.

/// Names and values of all headers of a record, at most.
pub(crate) const HEADERS_BYTES_MAX: usize = 32 << 10;

/// The header that says where in its stream's schema a record is at fault that passes all the
/// same.
pub(crate) const SCHEMA_VIOLATION: &str = "schema-violation";

/// Further headers of a record, in their order, each name once. A record without any, which is
/// most of them, has a null pointer here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Option<Box<List>>);

type List = Vec<(Box<str>, Box<str>)>;

const _: () = assert!(size_of::<Headers>() == size_of::<usize>());

impl Headers {
    /// Adds a header; to one of the same name as a further value, as HTTP joins them (RFC 9110
    /// section 5.3).
    pub fn add(&mut self, name: &str, value: &str) {
        debug_assert!(!name.is_empty(), "a header has a name");
        let list = self.0.get_or_insert_default();
        match list.iter_mut().find(|(known, _)| **known == *name) {
            Some((_, values)) => *values = format!("{values}, {value}").into(),
            None => list.push((name.into(), value.into())),
        }
        debug_assert!(self.bytes() <= HEADERS_BYTES_MAX, "heads are shorter");
    }

    /// Adds these, where there are any.
    #[inline]
    pub(crate) fn joined(mut self, others: &Self) -> Self {
        for (name, value) in others.iter() {
            self.add(name, value);
        }
        self
    }

    pub(crate) fn len(&self) -> usize {
        self.0.as_deref().map_or(0, Vec::len)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let list = self.0.as_deref().map_or(&[][..], Vec::as_slice);
        list.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Counts bytes of memory: names and values, and the pointers to them.
    #[inline]
    pub(crate) fn held_bytes(&self) -> usize {
        self.bytes() + self.len() * size_of::<(Box<str>, Box<str>)>()
    }

    /// Counts bytes of names and values.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        match &self.0 {
            None => 0,
            Some(list) => list
                .iter()
                .map(|(name, value)| name.len() + value.len())
                .sum(),
        }
    }
}
