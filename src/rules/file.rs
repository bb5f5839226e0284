//! The rules file: TOML in which every key has a meaning, and every fault a line.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::edit::Edit;
use super::key::Key;
use super::pointer::Pointer;
use super::schema::Schema;
use super::sources::Sources;
use super::value::{Member, Value};
use super::{OnViolation, Rules, SinkHeaders, VARIABLE};
use crate::durable::warn_of_other_readers;

/// Edits of one stream.
pub(super) const EDITS_MAX: usize = 64;

const KEYS: [&str; 4] = ["schema", "on_violation", "device_field", "edit"];

/// Why a rules file cannot be used: where the fault is, and what it is. It holds nothing of a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{}: {reason}", file.display(), place(*line))]
pub struct RulesError {
    pub file: PathBuf,
    /// `None` for a file that cannot be read at all.
    pub line: Option<usize>,
    /// Begins with the key, where the fault is one's.
    pub reason: String,
}

fn place(line: Option<usize>) -> String {
    line.map_or_else(String::new, |line| format!(", line {line}"))
}

/// Reads a rules file and what it names.
pub(super) fn read(
    file: &Path,
    sources: &Arc<Sources>,
    headers: SinkHeaders,
) -> Result<Rules, RulesError> {
    let unreadable = |reason: String| RulesError {
        file: file.to_owned(),
        line: None,
        reason,
    };
    let bytes = sources.read(file).map_err(unreadable)?;
    let text = String::from_utf8(bytes).map_err(|error| unreadable(error.to_string()))?;
    let reader = Reader {
        file,
        text: &text,
        folder: file.parent().unwrap_or(Path::new("")),
        sources,
    };
    reader.rules(headers)
}

/// Reads a file of which this is the text.
struct Reader<'f> {
    file: &'f Path,
    text: &'f str,
    /// Folder of the files that it names.
    folder: &'f Path,
    sources: &'f Arc<Sources>,
}

/// One table of the file, by the name that its keys have in errors.
struct Table<'t> {
    name: &'static str,
    line: usize,
    entries: &'t DeTable<'t>,
}

/// A key that is there, and its value.
struct Entry<'t> {
    key: String,
    line: usize,
    value: &'t DeValue<'t>,
}

impl Reader<'_> {
    fn rules(&self, headers: SinkHeaders) -> Result<Rules, RulesError> {
        let parsed = DeTable::parse(self.text).map_err(|error| {
            let line = self.line(error.span().map_or(0, |span| span.start));
            self.fault(line, error.message())
        })?;
        let table = Table {
            name: "",
            line: 1,
            entries: parsed.get_ref(),
        };
        self.no_others(&table, &KEYS)?;
        Ok(Rules {
            schema: self.schema(&table)?,
            on_violation: self.on_violation(&table, headers)?,
            device_field: self.device_field(&table)?,
            edits: self.edits(&table)?,
        })
    }

    fn schema(&self, table: &Table<'_>) -> Result<Option<Schema>, RulesError> {
        let Some(entry) = self.entry(table, "schema") else {
            return Ok(None);
        };
        let file = self.folder.join(self.text_of(&entry)?);
        let schema = Schema::compile(&file, self.sources);
        schema.map(Some).map_err(|reason| self.at(&entry, &reason))
    }

    fn on_violation(
        &self,
        table: &Table<'_>,
        headers: SinkHeaders,
    ) -> Result<OnViolation, RulesError> {
        let Some(entry) = self.entry(table, "on_violation") else {
            return Ok(OnViolation::Reject);
        };
        match (self.text_of(&entry)?, headers) {
            ("reject", _) => Ok(OnViolation::Reject),
            ("tag", SinkHeaders::Kept) => Ok(OnViolation::Tag),
            ("tag", SinkHeaders::Dropped) => {
                let reason = "\"tag\" needs a sink with headers, and Kinesis has none: \
                              write on_violation = \"reject\"";
                Err(self.at(&entry, reason))
            }
            _ => Err(self.at(&entry, "is neither \"reject\" nor \"tag\"")),
        }
    }

    fn device_field(&self, table: &Table<'_>) -> Result<Option<Pointer>, RulesError> {
        let Some(entry) = self.entry(table, "device_field") else {
            return Ok(None);
        };
        let field = self.pointer_of(&entry)?;
        if field.is_root() {
            return Err(self.at(&entry, "is the whole record: name a member of an object"));
        }
        Ok(Some(field))
    }

    fn edits(&self, table: &Table<'_>) -> Result<Vec<Edit>, RulesError> {
        let Some(entry) = self.entry(table, "edit") else {
            return Ok(Vec::new());
        };
        let DeValue::Array(tables) = entry.value else {
            return Err(self.at(&entry, "is written as [[edit]]"));
        };
        if tables.len() > EDITS_MAX {
            return Err(self.at(&entry, &format!("there are more than {EDITS_MAX}")));
        }
        let edits = tables.iter().map(|table| self.edit(&entry, table));
        edits.collect()
    }

    fn edit(&self, edits: &Entry<'_>, value: &Spanned<DeValue<'_>>) -> Result<Edit, RulesError> {
        let DeValue::Table(entries) = value.get_ref() else {
            return Err(self.at(edits, "is written as [[edit]]"));
        };
        let table = Table {
            name: "edit.",
            line: self.line(value.span().start),
            entries,
        };
        let op = self.required(&table, "op")?;
        let keys: &[&str] = match self.text_of(&op)? {
            "remove" => &["op", "path"],
            "add" | "replace" => &["op", "path", "value"],
            "move" | "copy" => &["op", "path", "from"],
            "hmac" => &["op", "path", "key_file"],
            _ => {
                let reason =
                    "is none of \"add\", \"remove\", \"replace\", \"move\", \"copy\", \"hmac\"";
                return Err(self.at(&op, reason));
            }
        };
        self.no_others(&table, keys)?;
        self.edit_of(&table, &op)
    }

    /// The edit of a table that has no other keys than its `op` knows.
    fn edit_of(&self, table: &Table<'_>, op: &Entry<'_>) -> Result<Edit, RulesError> {
        let entry = self.required(table, "path")?;
        let path = self.pointer_of(&entry)?;
        Ok(match self.text_of(op)? {
            "remove" if path.is_root() => {
                return Err(self.at(
                    &entry,
                    "is the whole record, of which nothing would be left",
                ));
            }
            "remove" => Edit::Remove { path },
            "add" => Edit::Add {
                path,
                value: self.value(table)?,
            },
            "replace" => Edit::Replace {
                path,
                value: self.value(table)?,
            },
            "move" => {
                let from = self.from(table)?;
                if from.holds(&path) {
                    return Err(self.at(&entry, "is within what is moved there"));
                }
                Edit::Move { from, path }
            }
            "copy" => Edit::Copy {
                from: self.from(table)?,
                path,
            },
            _ => Edit::Hmac {
                path,
                key: Box::new(self.key(table)?),
            },
        })
    }

    fn from(&self, table: &Table<'_>) -> Result<Pointer, RulesError> {
        self.pointer_of(&self.required(table, "from")?)
    }

    fn key(&self, table: &Table<'_>) -> Result<Key, RulesError> {
        let entry = self.required(table, "key_file")?;
        let name = self.text_of(&entry)?;
        if Key::parse(name.as_bytes()).is_some() {
            return Err(self.at(&entry, "is a key: write the name of a file that holds it"));
        }
        let file = self.folder.join(name);
        let fault = |reason: &str| self.at(&entry, &format!("{}: {reason}", file.display()));
        let text = self.sources.read(&file).map_err(|reason| fault(&reason))?;
        warn_of_other_readers(VARIABLE, &file);
        Key::parse(&text).ok_or_else(|| fault("a key is 64 hex digits"))
    }

    fn value(&self, table: &Table<'_>) -> Result<Value<'static>, RulesError> {
        let entry = self.required(table, "value")?;
        json(entry.value).ok_or_else(|| {
            self.at(
                &entry,
                "has a date, an infinity or a NaN, which JSON does not: write it as text",
            )
        })
    }

    fn entry<'t>(&self, table: &Table<'t>, name: &str) -> Option<Entry<'t>> {
        let (key, value) = table.entries.get_key_value(name)?;
        Some(Entry {
            key: format!("{}{name}", table.name),
            line: self.line(key.span().start),
            value: value.get_ref(),
        })
    }

    fn required<'t>(&self, table: &Table<'t>, name: &str) -> Result<Entry<'t>, RulesError> {
        let missing = || self.fault(table.line, &format!("{}{name}: is not there", table.name));
        self.entry(table, name).ok_or_else(missing)
    }

    /// A key that has no meaning is a mistyped one.
    fn no_others(&self, table: &Table<'_>, known: &[&str]) -> Result<(), RulesError> {
        for key in table.entries.keys() {
            let name = key.get_ref();
            if !known.contains(&name.as_ref()) {
                let line = self.line(key.span().start);
                let known = known.join(", ");
                let reason = format!("{}{name}: is no key here: there are {known}", table.name);
                return Err(self.fault(line, &reason));
            }
        }
        Ok(())
    }

    fn text_of<'t>(&self, entry: &Entry<'t>) -> Result<&'t str, RulesError> {
        match entry.value {
            DeValue::String(text) => Ok(text),
            _ => Err(self.at(entry, "is no text in quotes")),
        }
    }

    fn pointer_of(&self, entry: &Entry<'_>) -> Result<Pointer, RulesError> {
        let pointer = Pointer::parse(self.text_of(entry)?);
        pointer.ok_or_else(|| self.at(entry, "is no JSON Pointer, which is written like \"/a/b\""))
    }

    /// The line of a byte, from 1.
    fn line(&self, at: usize) -> usize {
        let before = &self.text.as_bytes()[..at.min(self.text.len())];
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }

    fn at(&self, entry: &Entry<'_>, reason: &str) -> RulesError {
        self.fault(entry.line, &format!("{}: {reason}", entry.key))
    }

    fn fault(&self, line: usize, reason: &str) -> RulesError {
        RulesError {
            file: self.file.to_owned(),
            line: Some(line),
            reason: reason.to_owned(),
        }
    }
}

/// A value of TOML as JSON; `None` for what JSON does not have.
fn json(value: &DeValue<'_>) -> Option<Value<'static>> {
    Some(match value {
        DeValue::String(text) => Value::String(text.to_string().into()),
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Integer(number) => {
            let number = i128::from_str_radix(number.as_str(), number.radix()).ok()?;
            Value::Number(number.to_string().into())
        }
        DeValue::Float(number) => {
            let number = serde_json::Number::from_f64(number.as_str().parse().ok()?)?;
            Value::Number(number.to_string().into())
        }
        DeValue::Array(items) => {
            let items = items.iter().map(|item| json(item.get_ref()));
            Value::Array(items.collect::<Option<_>>()?)
        }
        DeValue::Table(table) => Value::Object(members(table)?),
        DeValue::Datetime(_) => return None,
    })
}

fn members(table: &DeTable<'_>) -> Option<Vec<Member<'static>>> {
    let mut members = Vec::with_capacity(table.len());
    for (name, value) in table {
        members.push(Member {
            name: name.get_ref().to_string().into(),
            value: json(value.get_ref())?,
        });
    }
    Some(members)
}

#[cfg(test)]
mod tests;
