//! Which files are still to be applied, from the files and what the database has recorded. No I/O.

use crate::files::Migration;

/// Files and database do not fit.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PlanError {
    #[error(
        "{0} was changed after it had been applied (its checksum is another one). Put its applied text back, and write what you want changed into a new, later file"
    )]
    Changed(String),
    #[error("the database has {0} applied, which is not in this folder: it was migrated by a newer version. Use that version")]
    Unknown(String),
    #[error("{file} is not applied, but {later} is, which comes after it. Give {file} a number after all that are applied")]
    OutOfOrder { file: String, later: String },
}

/// The files still to be applied, in order. `applied` holds name and checksum of those that are.
///
/// # Errors
/// [`PlanError`]: then nothing may be applied.
pub(crate) fn pending<'a>(files: &'a [Migration], applied: &[(String, String)]) -> Result<Vec<&'a Migration>, PlanError> {
    for (name, checksum) in applied {
        match files.iter().find(|file| file.name == *name) {
            None => return Err(PlanError::Unknown(name.clone())),
            Some(file) if file.checksum != *checksum => return Err(PlanError::Changed(name.clone())),
            Some(_) => {}
        }
    }
    let pending: Vec<_> = files.iter().filter(|file| !applied.iter().any(|(name, _)| *name == file.name)).collect();
    if let (Some(first), Some((last, _))) = (pending.first(), applied.iter().max())
        && first.name < *last
    {
        return Err(PlanError::OutOfOrder { file: first.name.clone(), later: last.clone() });
    }
    Ok(pending)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> Migration {
        Migration::new(name.to_owned(), name)
    }

    fn applied(names: &[&str]) -> Vec<(String, String)> {
        names.iter().map(|name| ((*name).to_owned(), file(name).checksum)).collect()
    }

    #[test]
    fn only_what_is_missing_is_applied_in_order() {
        let files = [file("0001_a.sql"), file("0002_b.sql"), file("0003_c.sql")];
        let names = |done: &[&str]| pending(&files, &applied(done)).unwrap().iter().map(|f| f.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&[]), ["0001_a.sql", "0002_b.sql", "0003_c.sql"]);
        assert_eq!(names(&["0001_a.sql"]), ["0002_b.sql", "0003_c.sql"]);
        assert!(names(&["0001_a.sql", "0002_b.sql", "0003_c.sql"]).is_empty());
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let files = [file("0001_a.sql"), file("0002_b.sql")];
        let mut changed = applied(&["0001_a.sql"]);
        changed[0].1 = "0".repeat(64);
        assert_eq!(pending(&files, &changed), Err(PlanError::Changed("0001_a.sql".to_owned())));
        assert_eq!(pending(&files, &applied(&["0009_z.sql"])), Err(PlanError::Unknown("0009_z.sql".to_owned())));
        let error = pending(&files, &applied(&["0002_b.sql"])).unwrap_err();
        assert_eq!(error, PlanError::OutOfOrder { file: "0001_a.sql".to_owned(), later: "0002_b.sql".to_owned() });
    }
}
