//! The numbered SQL files and their checksums.

use sha2::{Digest as _, Sha256};
use std::path::Path;

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Migration {
    /// The file's name, `0001_what.sql`.
    pub(crate) name: String,
    /// Its text, lines ending in a line feed.
    pub(crate) sql: String,
    /// SHA-256 of the text, in hexadecimal.
    pub(crate) checksum: String,
}

/// A folder that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FilesError {
    #[error("{0}: {1}. Run this at the project's root, or say --dir")]
    Unreadable(String, std::io::Error),
    #[error("{0} is not named like 0001_what_it_does.sql (four digits, then a-z, 0-9 and '_'). Rename it")]
    Name(String),
    #[error("{0} and {1} have the same number. Give the later one the next free number")]
    Twice(String, String),
    #[error("{0} holds no .sql file. Run this at the project's root, or say --dir")]
    Empty(String),
}

fn is_well_named(name: &str) -> bool {
    let Some(stem) = name.strip_suffix(".sql") else { return false };
    let bytes = stem.as_bytes();
    bytes.len() > 5
        && bytes.iter().take(4).all(u8::is_ascii_digit)
        && bytes.get(4) == Some(&b'_')
        && bytes.iter().skip(5).all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'_')
}

impl Migration {
    /// A file from its name and text. Line ends do not count: a checkout may have changed them.
    pub(crate) fn new(name: String, text: &str) -> Self {
        let sql = text.replace("\r\n", "\n");
        let checksum = hex::encode(Sha256::digest(sql.as_bytes()));
        Self { name, sql, checksum }
    }

    /// The four digits.
    pub(crate) fn number(&self) -> &str {
        self.name.get(..4).unwrap_or_default()
    }
}

/// Reads a folder's SQL files, in the order of their numbers.
///
/// # Errors
/// [`FilesError`], naming the file.
pub(crate) fn read(dir: &Path) -> Result<Vec<Migration>, FilesError> {
    let unreadable = |path: &Path, error| FilesError::Unreadable(path.display().to_string(), error);
    let mut migrations = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(|e| unreadable(dir, e))? {
        let path = entry.map_err(|e| unreadable(dir, e))?.path();
        if path.extension().is_none_or(|extension| extension != "sql") {
            continue;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !is_well_named(&name) {
            return Err(FilesError::Name(name));
        }
        let text = std::fs::read_to_string(&path).map_err(|e| unreadable(&path, e))?;
        migrations.push(Migration::new(name, &text));
    }
    migrations.sort_by(|a, b| a.name.cmp(&b.name));
    for (one, next) in migrations.iter().zip(migrations.iter().skip(1)) {
        if one.number() == next.number() {
            return Err(FilesError::Twice(one.name.clone(), next.name.clone()));
        }
    }
    if migrations.is_empty() {
        return Err(FilesError::Empty(dir.display().to_string()));
    }
    Ok(migrations)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_a_number_and_a_purpose() {
        assert!(is_well_named("0001_roles_and_schema.sql"));
        for name in ["1_a.sql", "0001.sql", "0001_.sql", "0001_A.sql", "0001-a.sql", "00012_a.sql", "0001_a.sq", "é001_a.sql", ""] {
            assert!(!is_well_named(name), "{name}");
        }
    }

    #[test]
    fn line_ends_do_not_change_a_checksum_but_anything_else_does() {
        let checksum = |text| Migration::new("0001_a.sql".to_owned(), text).checksum;
        assert_eq!(checksum("a;\nb;\n"), checksum("a;\r\nb;\r\n"));
        assert_ne!(checksum("a;\nb;\n"), checksum("a;\nb; \n"));
    }

    #[test]
    fn the_projects_own_folder_reads() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations");
        assert!(!read(&dir).unwrap().is_empty());
    }
}
