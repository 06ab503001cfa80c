//! The restrictions that a worker's runtime sets, as the value of an environment variable.
//!
//! Pure.

use child_process::internal::OwnRestrictions;

const UNDUMPABLE: &str = "undumpable";
const NO_EXECVE: &str = "no-execve";

/// Returns the value for these restrictions; `None` for none.
pub(crate) fn to_variable(own: OwnRestrictions) -> Option<String> {
    let words = [(own.undumpable, UNDUMPABLE), (own.forbids_execve, NO_EXECVE)];
    let words: Vec<_> = words.iter().filter(|(on, _)| *on).map(|(_, word)| *word).collect();
    (!words.is_empty()).then(|| words.join(","))
}

/// Returns the restrictions of a value; `None` when a word is unknown.
pub(crate) fn from_variable(value: &str) -> Option<OwnRestrictions> {
    let mut own = OwnRestrictions::default();
    for word in value.split(',') {
        match word {
            UNDUMPABLE => own.undumpable = true,
            NO_EXECVE => own.forbids_execve = true,
            _ => return None,
        }
    }
    Some(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restrictions_come_back_from_the_variable() {
        for (undumpable, forbids_execve) in [(true, true), (true, false), (false, true)] {
            let own = OwnRestrictions { undumpable, forbids_execve };
            assert_eq!(from_variable(&to_variable(own).unwrap()), Some(own));
        }
        assert_eq!(to_variable(OwnRestrictions::default()), None);
        assert_eq!(from_variable("undumpable,x"), None);
        assert_eq!(from_variable(""), None);
    }
}
