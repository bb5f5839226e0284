//! The form of a body, by its content type: one record, or many that are cut from it.

use super::{Field, Refusal};

/// The form of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// One record, of any type.
    One,
    /// A record a line.
    Lines,
    /// The elements of one JSON array.
    Array,
    /// Records that each follow their length.
    Delimited,
}

/// The content types of bodies of many records.
const FORMS: [(&[u8], Form); 4] = [
    (b"application/x-ndjson", Form::Lines),
    (b"application/jsonl", Form::Lines),
    (b"application/json", Form::Array),
    (b"application/vnd.forebay.records", Form::Delimited),
];

impl Form {
    /// Returns the form of a body of many records of this type. Parameters make no difference.
    pub(super) fn of_many(content_type: Field<'_>) -> Result<Self, Refusal> {
        let Field::Once(value) = content_type else {
            return Err(Refusal::UnsupportedMediaType);
        };
        let mut parts = value.split(|byte| *byte == b';');
        let name = parts.next().unwrap_or_default().trim_ascii();
        let known = FORMS
            .iter()
            .find(|(known, _)| name.eq_ignore_ascii_case(known));
        known
            .map(|(_, form)| *form)
            .ok_or(Refusal::UnsupportedMediaType)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_says_how_a_body_is_cut_whatever_its_parameters() {
        let form = |text: &'static str| Form::of_many(Field::Once(text.as_bytes())).ok();
        assert_eq!(
            form("Application/X-NDJSON; charset=utf-8"),
            Some(Form::Lines)
        );
        assert_eq!(form("application/jsonl"), Some(Form::Lines));
        assert_eq!(form("application/json ;x=1"), Some(Form::Array));
        assert_eq!(
            form("application/vnd.forebay.records"),
            Some(Form::Delimited)
        );
        for other in ["", "text/plain", "application/json-seq", "application/"] {
            assert_eq!(form(other), None, "{other}");
        }
        let repeated = Form::of_many(Field::Repeated(b"application/json"));
        assert!(matches!(repeated, Err(Refusal::UnsupportedMediaType)));
        assert!(Form::of_many(Field::Absent).is_err());
    }
}
