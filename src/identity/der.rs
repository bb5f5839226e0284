//! Walking DER: elements inside elements, to the last byte.
//!
//! For what x509-parser reads too leniently, or would copy: names, and lists of a million entries.
//! Nothing is copied. What does not fit together is [`IdentityError::Malformed`].

use x509_parser::asn1_rs::{Class, FromDer, Header, Length, Tag};

use super::IdentityError;

/// One DER element.
pub(crate) struct Element<'a> {
    pub header: Header<'a>,
    pub content: &'a [u8],
    /// The header and the content.
    pub whole: &'a [u8],
}

impl<'a> Element<'a> {
    pub(crate) fn is(&self, class: Class) -> bool {
        self.header.class() == class
    }

    pub(crate) fn is_universal(&self, tag: Tag) -> bool {
        self.is(Class::Universal) && self.header.tag() == tag
    }

    /// Whether it is the choice, or the field, of this number.
    pub(crate) fn is_choice(&self, number: Tag) -> bool {
        self.is(Class::ContextSpecific) && self.header.tag() == number
    }

    /// The content of an element of this type; an error for any other.
    pub(crate) fn expect(&self, tag: Tag) -> Result<&'a [u8], IdentityError> {
        if self.is_universal(tag) {
            Ok(self.content)
        } else {
            Err(IdentityError::Malformed)
        }
    }
}

/// The content of the one element that `der` consists of.
pub(crate) fn only(der: &[u8], tag: Tag) -> Result<&[u8], IdentityError> {
    match split(der) {
        Ok((element, [])) => element.expect(tag),
        _ => Err(IdentityError::Malformed),
    }
}

/// The elements that `der` consists of, to its last byte; ends after an error.
pub(crate) fn elements(mut der: &[u8]) -> impl Iterator<Item = Result<Element<'_>, IdentityError>> {
    std::iter::from_fn(move || {
        if der.is_empty() {
            return None;
        }
        let first = take(&mut der);
        if first.is_err() {
            der = &[];
        }
        Some(first)
    })
}

/// Takes the first element off `der`.
pub(crate) fn take<'a>(der: &mut &'a [u8]) -> Result<Element<'a>, IdentityError> {
    let (element, rest) = split(der)?;
    *der = rest;
    Ok(element)
}

/// Takes the first element off `der` if there is one and it is the one that is looked for.
pub(crate) fn take_if<'a>(
    der: &mut &'a [u8],
    is: impl Fn(&Element) -> bool,
) -> Result<Option<Element<'a>>, IdentityError> {
    if der.is_empty() {
        return Ok(None);
    }
    let (element, rest) = split(der)?;
    if !is(&element) {
        return Ok(None);
    }
    *der = rest;
    Ok(Some(element))
}

fn split(der: &[u8]) -> Result<(Element<'_>, &[u8]), IdentityError> {
    let (rest, header) = Header::from_der(der).map_err(|_| IdentityError::Malformed)?;
    let Length::Definite(bytes) = header.length() else {
        return Err(IdentityError::Malformed);
    };
    let parts = rest.split_at_checked(bytes);
    let (content, rest) = parts.ok_or(IdentityError::Malformed)?;
    let whole = &der[..der.len() - rest.len()];
    debug_assert!(!whole.is_empty(), "who walks on comes to an end");
    let element = Element {
        header,
        content,
        whole,
    };
    Ok((element, rest))
}
