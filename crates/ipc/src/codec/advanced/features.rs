//! The features of newer versions of V8 that a peer is known to read.
//!
//! Every version writes the same version number, and a Node process ends when its V8 cannot read a
//! value. A peer that has written a feature reads it, too; until then such a value is refused.
//!
//! Pure. Limits: [`PATTERNS_MAX`], [`PATTERN_UNITS_MAX`].

use super::value::{Node, Text, Value, ViewKind};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The number of regular expressions that are remembered.
const PATTERNS_MAX: usize = 1024;

/// The number of UTF-16 code units of a regular expression that is remembered.
const PATTERN_UNITS_MAX: usize = 1024;

/// The features that one peer has written.
#[derive(Debug, Default)]
pub(crate) struct Features {
    /// A resizable `ArrayBuffer`, from Node 20 on.
    pub(super) resizable: AtomicBool,
    /// A `Float16Array`, from Node 24 on.
    pub(super) float16: AtomicBool,
    /// An error that is a part of its own cause, which Node reads from version 22 on.
    pub(super) error_in_itself: AtomicBool,
    /// Regular expressions with syntax or flags that not every version knows.
    patterns: Mutex<HashSet<(Text, u32)>>,
}

impl Features {
    pub(super) fn knows(feature: &AtomicBool) -> bool {
        feature.load(Ordering::Relaxed)
    }

    pub(super) fn learn(feature: &AtomicBool) {
        feature.store(true, Ordering::Relaxed);
    }

    pub(super) fn knows_pattern(&self, source: &Text, flags: u32) -> bool {
        self.patterns().contains(&(source.clone(), flags))
    }

    pub(super) fn learn_pattern(&self, source: &Text, flags: u32) {
        let mut patterns = self.patterns();
        if patterns.len() < PATTERNS_MAX && source.units().len() <= PATTERN_UNITS_MAX {
            patterns.insert((source.clone(), flags));
        }
    }

    fn patterns(&self) -> MutexGuard<'_, HashSet<(Text, u32)>> {
        self.patterns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether a value may have anything that is to be learned.
pub(super) fn may_have_features(value: &Value) -> bool {
    value.nodes().any(|node| {
        matches!(
            node,
            Node::ResizableArrayBuffer { .. }
                | Node::View { kind: ViewKind::Float16, .. }
                | Node::RegExp { .. }
                | Node::Error { cause: Some(_), .. }
        )
    })
}
