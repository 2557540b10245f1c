//! The declarations as text: the reference for people, and an example to start from.

use std::fmt::Write as _;

use super::section::{Field, environment_name};
use super::{Config, TABLES};

impl Config {
    /// The text of `docs/config.md`: every key with its meaning, default, range and environment variable.
    pub fn reference() -> String {
        let mut out = String::from(REFERENCE_HEAD);
        for table in TABLES {
            let heading = match (table.path, table.repeated) {
                ("", _) => "Above every table".to_owned(),
                (path, true) => format!("`[[{path}]]`"),
                (path, false) => format!("`[{path}]`"),
            };
            let _ = write!(out, "\n## {heading}\n");
            if !table.doc.is_empty() {
                let _ = write!(out, "\n{}\n", paragraph(table.doc));
            }
            for field in table.fields {
                let _ = write!(out, "\n### `{}`\n\n{}\n\n", table.key(field), paragraph(field.doc));
                let _ = writeln!(out, "- {}", kind(field));
                let _ = match field.default {
                    Some(_) => writeln!(out, "- default: {}", default(field)),
                    None => writeln!(out, "- required"),
                };
                if let Some((least, most)) = field.range {
                    let _ = writeln!(out, "- from `{least}` to `{most}`");
                }
                if !table.repeated {
                    let _ = writeln!(out, "- environment: `{}`", environment_name(&table.key(field)));
                }
            }
        }
        out
    }

    /// A file with every setting at its default, commented out, and one of each declared object.
    pub fn example() -> String {
        let mut out = String::from(EXAMPLE_HEAD);
        for table in TABLES.iter().filter(|table| !table.repeated) {
            out.push('\n');
            if !table.path.is_empty() {
                for line in table.doc {
                    let _ = writeln!(out, "#{line}");
                }
                let _ = writeln!(out, "[{}]", table.path);
            }
            for field in table.fields {
                for line in field.doc {
                    let _ = writeln!(out, "#{line}");
                }
                if let Some((least, most)) = field.range {
                    let _ = writeln!(out, "# From {least} to {most}.");
                }
                let _ = writeln!(out, "#{} = {}", field.name, in_toml(field));
            }
        }
        out.push_str(EXAMPLE_DECLARED);
        out
    }
}

const REFERENCE_HEAD: &str = "\
# Configuration

Made by `./dev gen` from `crates/server/src/config.rs`; edit it there.

Framehook reads a TOML file (`serve --config FILE`, or the variable `FRAMEHOOK_CONFIG`), then the environment, then the
flags; a later one wins. Every key has a default: an empty file works, and so does no file. An unknown key or a value out of
its range ends the start with all problems listed; `framehook config check` lists them without starting anything.

Domains, templates and rules have no variables and no flags. Those that stand in the file are changed there and nowhere else;
others may be made beside them, by `/v1` and the control API, and live in the database. SIGHUP reads the file again and applies
them to live streams within a second; a file with a problem changes nothing. The other settings take effect at the next start.
";

const EXAMPLE_HEAD: &str = "\
# Framehook's settings. Every line that is commented out shows a default.
# `framehook config check FILE` checks a file; `framehook config reference` explains every key.
";

/// What a newcomer needs: one domain, both templates, both rules, and a store for who has one. The keys are invented.
const EXAMPLE_DECLARED: &str = r#"
# Domains, templates and rules. As long as there is none, every publisher is accepted and gets a picture every 10 s in the
# local store. They are read again on SIGHUP.

#[[domain]]
#name = "push.example.com"
#auth = "on"
#main_key = "a-long-random-key-of-yours"

#[[snapshot_template]]
#name = "every-ten-seconds"
#snapshot_interval = "10s"
#width = 640

#[[snapshot_rendition]]
#template = "every-ten-seconds"
#name = "thumb"
#width = 160
#format = "webp"

#[[snapshot_rule]]
#domain = "push.example.com"
#app = "live"
#template = "every-ten-seconds"

#[[callback_template]]
#name = "moderation"
#snapshot_notify_url = "https://receiver.example.com/snapshot"
#stream_begin_notify_url = "https://receiver.example.com/push"
#stream_end_notify_url = "https://receiver.example.com/push"
#callback_key = "another-long-random-key-of-yours"

#[[callback_rule]]
#domain = "push.example.com"
#app = "live"
#template = "moderation"

# A store elsewhere, and a template whose region and bucket say that its pictures go there.
#[[object_store]]
#name = "pictures"
#kind = "s3"
#regions = ["eu-central-1"]
#short_bucket_names = true
#secret_id = "the-access-key-id"
#secret_key = "its-secret-key"

#[[snapshot_template]]
#name = "archive"
#cos_region = "eu-central-1"
#cos_bucket = "your-bucket"
#snapshot_interval = "1m"
"#;

/// The lines of a doc comment as one paragraph.
fn paragraph(doc: &[&str]) -> String {
    doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join("\n")
}

fn kind(field: &Field) -> String {
    if field.list { format!("a list, each {}", field.expected) } else { field.expected.to_owned() }
}

fn default(field: &Field) -> String {
    match field.default {
        Some("") if !field.list => "none".to_owned(),
        _ => format!("`{}`", in_toml(field)),
    }
}

/// The default as the file writes it.
fn in_toml(field: &Field) -> String {
    let text = field.default.unwrap_or_default();
    match (field.list, field.quoted) {
        (true, _) => format!("[{text}]"),
        (false, true) => toml::Value::String(text.to_owned()).to_string(),
        (false, false) => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    #[test]
    fn every_line_of_the_example_is_accepted_once_it_is_not_a_comment() {
        let settings = |line: &str| {
            let line = line.strip_prefix('#').unwrap_or(line);
            // Prose starts with a space; what is left are tables and keys.
            (!line.starts_with(' ')).then(|| line.to_owned())
        };
        let text: Vec<String> = Config::example().lines().filter_map(settings).collect();
        let config = Config::parse(&text.join("\n"), &Sources::default()).unwrap_or_else(|error| panic!("{error:?}"));
        assert_eq!(config.declared.callback_rules.len(), 1);
        assert_eq!(config.object_stores.len(), 1);
    }

    #[test]
    fn the_example_has_one_of_each_declared_object() {
        let example = Config::example();
        for table in TABLES.iter().filter(|table| table.repeated) {
            assert!(example.contains(&format!("#[[{}]]\n", table.path)), "{}", table.path);
        }
    }

    #[test]
    fn the_reference_holds_every_key_once() {
        let reference = Config::reference();
        let keys: Vec<String> =
            TABLES.iter().flat_map(|table| table.fields.iter().map(|field| table.key(field))).collect();
        for key in &keys {
            assert_eq!(reference.matches(&format!("### `{key}`\n")).count(), 1, "{key}");
        }
        assert!(reference.contains("- environment: `FRAMEHOOK_DELIVER_TIMEOUT`\n"));
    }

    #[test]
    fn no_two_keys_share_an_environment_variable() {
        let settings = TABLES.iter().filter(|table| !table.repeated);
        let mut names: Vec<String> =
            settings.flat_map(|table| table.fields.iter().map(|field| environment_name(&table.key(field)))).collect();
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
