//! The addresses that fit a type of stream or datagram socket.

use crate::protocol::address::Address;

/// The kind of address that a stream or datagram type can be bound to.
///
/// Public as a bound of sealed traits only; no program can name it.
pub trait AddressKind {
    /// The kind as an error message names it, with an article.
    const KIND: &'static str;

    /// Returns whether a socket of this type can be bound to `address`.
    fn fits(address: &Address) -> bool;
}
