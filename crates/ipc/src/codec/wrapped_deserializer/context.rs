//! The state beside the bytes while one value is read.

use crate::codec::advanced::Features;
use crate::codec::fingerprint::Fingerprint;
use crate::codec::{DecodeLimits, ZERO_SIZE_ELEMENTS_MAX};
use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;

/// [`ZERO_SIZE_ELEMENTS_MAX`]; a smaller number under Miri, which counts to the limit for minutes.
const ELEMENTS_FREE: usize = if cfg!(miri) { 2_000 } else { ZERO_SIZE_ELEMENTS_MAX };

/// The state beside the bytes while one value is read.
#[derive(Debug)]
pub(crate) struct DecodeContext<'b> {
    handles: RefCell<Vec<Option<OwnedFd>>>,
    /// The owner of the bytes, when there is one, from which blobs are cut.
    pub(super) owner: Option<&'b Bytes>,
    /// The number of further list elements that the payload may announce.
    pub(super) elements: Cell<usize>,
    pub(crate) limits: DecodeLimits,
    /// The number of bytes of shared memory that may still be mapped.
    pub(super) mapped_left: Cell<usize>,
    pub(crate) fingerprint: Fingerprint,
    /// The codec writes no types, so a value cannot ask for what comes next.
    pub(super) positional: bool,
    /// Whether a value has asked for what comes next nevertheless.
    pub(crate) asked: Cell<bool>,
    /// The features of V8 that the peer is known to read, if the peer is Node.
    pub(crate) features: Option<&'b Features>,
}

impl<'b> DecodeContext<'b> {
    /// `length` is the length of the payload, of which every element that is not empty takes a
    /// byte.
    pub(crate) fn new(
        handles: Vec<OwnedFd>,
        owner: Option<&'b Bytes>,
        length: usize,
        limits: DecodeLimits,
        positional: bool,
    ) -> DecodeContext<'b> {
        DecodeContext {
            handles: RefCell::new(handles.into_iter().map(Some).collect()),
            owner,
            elements: Cell::new(length.saturating_add(ELEMENTS_FREE)),
            limits,
            mapped_left: Cell::new(limits.mapped_bytes_max),
            fingerprint: Fingerprint::default(),
            positional,
            asked: Cell::new(false),
            features: None,
        }
    }

    pub(super) fn take_handle(&self, index: u32) -> Option<OwnedFd> {
        self.handles.borrow_mut().get_mut(index as usize)?.take()
    }

    #[inline]
    pub(super) fn count_element<E: serde::de::Error>(&self) -> Result<(), E> {
        match self.elements.get().checked_sub(1) {
            Some(left) => {
                self.elements.set(left);
                Ok(())
            }
            None => Err(E::custom("more list elements than bytes")),
        }
    }
}
