//! One table of the configuration: its keys are declared once, by [`section!`], and that declaration is the struct that
//! the program reads, the parser of the file, and the text of the reference.
//!
//! Not serde: it stops at the first wrong value and at the first unknown key, and knows neither defaults nor ranges nor
//! the environment, so all four would be declared a second time.

use std::collections::BTreeMap;

use super::problem::{Origin, Problem, nearest};
use super::value::{Mismatch, Value};

/// What is known about one table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table {
    /// The path of the table, such as `deliver` or `store.local`; empty for the keys above every table.
    pub(super) path: &'static str,
    /// Whether it is an array of tables, as domains and rules are.
    pub(super) repeated: bool,
    /// The doc comment, one entry per line.
    pub(super) doc: &'static [&'static str],
    /// Its keys in the order of the declaration.
    pub(super) fields: &'static [Field],
}

/// What is known about one key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    /// The doc comment, one entry per line.
    pub(super) doc: &'static [&'static str],
    /// The value when nobody sets it, written as in the file but unquoted; `None` if it must be set.
    pub(super) default: Option<&'static str>,
    /// The least and the most allowed, in the same notation.
    pub(super) range: Option<(&'static str, &'static str)>,
    pub(super) expected: &'static str,
    pub(super) quoted: bool,
    pub(super) list: bool,
}

impl Table {
    /// The full key of one of the table's fields.
    pub(super) fn key(&self, field: &Field) -> String {
        join(self.path, field.name)
    }
}

/// `path.name`, or `name` at the top.
pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The environment variable of a key: `deliver.timeout` is `FRAMEHOOK_DELIVER_TIMEOUT`.
pub(super) fn environment_name(key: &str) -> String {
    format!("{ENVIRONMENT_PREFIX}{}", key.to_ascii_uppercase().replace('.', "_"))
}

/// What every environment variable of ours starts with.
pub(super) const ENVIRONMENT_PREFIX: &str = "FRAMEHOOK_";

/// A struct that is one table of the configuration.
pub(super) trait Section: Sized {
    const TABLE: Table;

    /// Reads every field. `None` if one could not be read; the reader then holds a [`Problem`] for each.
    fn read(reader: &mut Reader<'_>) -> Option<Self>;

    /// The full keys of the fields that are not the same in `other`.
    fn differing(&self, other: &Self) -> Vec<String>;
}

/// Declares one table. Each key is `name: Type = "default" in "least"..="most"`; without a default it is required.
macro_rules! section {
    (
        $(#[doc = $section_doc:literal])*
        $visible:vis struct $name:ident at $path:literal $($repeated:ident)? {
            $(
                $(#[doc = $doc:literal])*
                $field:ident: $type:ty $(= $default:literal $(in $least:literal..=$most:literal)?)?,
            )*
        }
    ) => {
        $(#[doc = $section_doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        $visible struct $name {
            $($(#[doc = $doc])* $visible $field: $type,)*
        }

        impl $crate::config::section::Section for $name {
            const TABLE: $crate::config::section::Table = $crate::config::section::Table {
                path: $path,
                repeated: section!(@repeated $($repeated)?),
                doc: &[$($section_doc),*],
                fields: &[$(
                    $crate::config::section::Field {
                        name: stringify!($field),
                        doc: &[$($doc),*],
                        default: section!(@optional $($default)?),
                        range: section!(@optional $($(($least, $most))?)?),
                        expected: <$type as $crate::config::value::Value>::EXPECTED,
                        quoted: <$type as $crate::config::value::Value>::QUOTED,
                        list: <$type as $crate::config::value::Value>::LIST,
                    },
                )*],
            };

            fn read(reader: &mut $crate::config::section::Reader<'_>) -> Option<Self> {
                // Every field is read before the first failure is acted on, so that all problems are found.
                $(let $field = reader.field::<$type>(&Self::TABLE, stringify!($field));)*
                Some(Self { $($field: $field?,)* })
            }

            fn differing(&self, other: &Self) -> Vec<String> {
                let mut keys = Vec::new();
                $(if self.$field != other.$field {
                    keys.push($crate::config::section::join($path, stringify!($field)));
                })*
                keys
            }
        }
    };
    (@repeated) => { false };
    (@repeated repeated) => { true };
    (@optional) => { None };
    (@optional $value:expr) => { Some($value) };
}

pub(super) use section;

/// The values above the file: the environment's and the command line's, by key.
pub(super) type Overrides = BTreeMap<String, (Origin, String)>;

/// Reads the fields of one table, collecting what is wrong.
pub(super) struct Reader<'a> {
    /// The table as it is in the file, if it is there.
    pub(super) written: Option<&'a toml::Table>,
    /// Its path for messages: for an array of tables with the index.
    pub(super) path: String,
    pub(super) overrides: &'a Overrides,
    pub(super) problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    /// The value of one field: from the overrides, else the file, else the default.
    pub(super) fn field<T: Value>(&mut self, table: &Table, name: &str) -> Option<T> {
        let field = table.fields.iter().find(|field| field.name == name).expect("a section reads its own fields");
        let key = join(&self.path, name);
        let (origin, shown, parsed) = if let Some((origin, text)) = self.overrides.get(&key) {
            (origin.clone(), format!("{text:?}"), T::parse(text))
        } else if let Some(value) = self.written.and_then(|table| table.get(name)) {
            (Origin::File, value.to_string(), T::from_toml(value))
        } else if let Some(default) = field.default {
            (Origin::Default, default.to_owned(), T::parse(default))
        } else {
            self.problems.push(Problem::in_file(key, None, format!("is required: expected {}", field.expected)));
            return None;
        };
        let mut repeated = !T::HIDDEN;
        let what = match parsed {
            Ok(value) => match outside(&value, field) {
                None => return Some(value),
                Some(what) => what,
            },
            Err(Mismatch { why: Some(why), is_secret }) => {
                repeated &= !is_secret;
                why
            }
            Err(_) if field.list => format!("expected a list, each {}", field.expected),
            Err(_) => format!("expected {}", field.expected),
        };
        let range = match field.range {
            Some((least, most)) if !what.starts_with("must be") => format!(" from {least} to {most}"),
            _ => String::new(),
        };
        self.problems.push(Problem { key, value: repeated.then_some(shown), origin, what: what + &range });
        None
    }
}

/// Says so if a value lies outside the field's range.
fn outside<T: Value>(value: &T, field: &Field) -> Option<String> {
    let (least, most) = field.range?;
    let bound = |text: &str| T::parse(text).ok().and_then(|bound| bound.magnitude());
    let magnitude = value.magnitude()?;
    let inside =
        bound(least).is_none_or(|bound| bound <= magnitude) && bound(most).is_none_or(|bound| magnitude <= bound);
    (!inside).then(|| format!("must be from {least} to {most}"))
}

/// Reports every key of the file that nobody reads, with the key that was probably meant.
pub(super) fn refuse_unknown(written: &toml::Table, path: &str, tables: &[Table], problems: &mut Vec<Problem>) {
    let here = tables.iter().find(|table| table.path == path);
    let within = format!("{path}.");
    for (name, value) in written {
        let key = join(path, name);
        if here.is_some_and(|table| table.fields.iter().any(|field| field.name == name)) {
            continue;
        }
        let parent = tables.iter().any(|table| table.path == key || table.path.starts_with(&format!("{key}.")));
        let repeated = tables.iter().any(|table| table.path == key && table.repeated);
        match value {
            toml::Value::Table(inner) if parent && !repeated => refuse_unknown(inner, &key, tables, problems),
            toml::Value::Array(items) if repeated => {
                for (index, item) in items.iter().enumerate() {
                    let path = format!("{key}[{}]", index + 1);
                    match item.as_table() {
                        Some(item) => refuse_unknown_item(item, &path, &key, tables, problems),
                        None => {
                            problems.push(Problem::in_file(path, Some(item.to_string()), format!("expected [[{key}]]")))
                        }
                    }
                }
            }
            _ if repeated => problems.push(Problem::in_file(key.clone(), None, format!("expected [[{key}]]"))),
            _ if parent => problems.push(Problem::in_file(key.clone(), None, format!("expected [{key}]"))),
            _ => {
                let mut known: Vec<String> =
                    tables.iter().filter(|table| !table.path.is_empty()).map(|table| table.path.to_owned()).collect();
                known.extend(
                    tables
                        .iter()
                        .filter(|table| !table.repeated)
                        .flat_map(|table| table.fields.iter().map(|field| table.key(field))),
                );
                // The siblings come first, so that one of them wins a tie.
                known.sort_by_key(|known| path.is_empty() || !known.starts_with(&within));
                problems.push(unknown(&key, nearest(&key, known.iter().map(String::as_str))));
            }
        }
    }
}

/// The same for one item of an array of tables, whose keys are known without the index.
fn refuse_unknown_item(item: &toml::Table, path: &str, key: &str, tables: &[Table], problems: &mut Vec<Problem>) {
    let fields = tables.iter().find(|table| table.path == key).map(|table| table.fields).unwrap_or_default();
    for name in item.keys().filter(|name| !fields.iter().any(|field| field.name == *name)) {
        problems.push(unknown(&join(path, name), nearest(name, fields.iter().map(|field| field.name))));
    }
}

fn unknown(key: &str, meant: Option<&str>) -> Problem {
    let what = match meant {
        Some(meant) => format!("is no setting; did you mean {meant}?"),
        None => "is no setting; `framehook config reference` lists them all".to_owned(),
    };
    Problem::in_file(key, None, what)
}
