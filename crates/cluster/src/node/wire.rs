//! The messages between a Node primary and its workers, as values.
//!
//! Every message is one object: `{"cmd":"NODE_CLUSTER", …, "seq":n}`. `seq` counts the messages of
//! one side; a message with `ack` answers the message with that `seq`. The other side is a program
//! that may send anything, so a field of the wrong type reads as absent.
//!
//! Pure.

use std::fmt;
use std::net::SocketAddr;

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

/// The `cmd` of every message of Node's cluster.
pub(crate) const CLUSTER: &str = "NODE_CLUSTER";

/// One message, in either direction. Its fields depend on its `act`, or on the message it answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Message {
    pub(crate) cmd: String,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "text")]
    pub(crate) act: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "number")]
    pub(crate) errno: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "text")]
    pub(crate) key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "number")]
    pub(crate) ack: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "boolean")]
    pub(crate) accepted: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "number")]
    pub(crate) index: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) data: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "text")]
    pub(crate) address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "number")]
    pub(crate) port: Option<i64>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "as_number",
        deserialize_with = "text"
    )]
    pub(crate) address_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "number")]
    pub(crate) fd: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "number")]
    pub(crate) flags: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "number")]
    pub(crate) backlog: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "boolean")]
    pub(crate) readable_all: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "boolean")]
    pub(crate) writable_all: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sockname: Option<SockName>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "number")]
    pub(crate) seq: Option<i64>,
}

/// The address of a server, in the form of `server.address()`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct SockName {
    #[serde(deserialize_with = "text")]
    pub(crate) address: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(crate) family: Option<String>,
    #[serde(deserialize_with = "number")]
    pub(crate) port: Option<i64>,
}

impl Message {
    /// Returns a message that is not an answer.
    pub(crate) fn act(act: &str, seq: i64) -> Self {
        let (cmd, act) = (CLUSTER.to_owned(), Some(act.to_owned()));
        Self { cmd, act, seq: Some(seq), ..Self::default() }
    }

    /// Returns the answer to the message with the number `ack`.
    pub(crate) fn answer(ack: i64, seq: i64) -> Self {
        Self { cmd: CLUSTER.to_owned(), ack: Some(ack), seq: Some(seq), ..Self::default() }
    }

    /// Returns whether the message belongs to Node's cluster.
    pub(crate) fn is_cluster(&self) -> bool {
        self.cmd == CLUSTER
    }
}

impl From<SocketAddr> for SockName {
    fn from(address: SocketAddr) -> Self {
        let family = if address.is_ipv6() { "IPv6" } else { "IPv4" };
        Self {
            address: Some(address.ip().to_string()),
            family: Some(family.to_owned()),
            port: Some(address.port().into()),
        }
    }
}

/// The part of any value that matters here.
#[derive(Debug, PartialEq)]
enum Scalar {
    Other,
    Bool(bool),
    Number(i64),
    Text(String),
}

fn number<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
    Ok(match from.deserialize_any(Any)? {
        Scalar::Number(number) => Some(number),
        Scalar::Other | Scalar::Bool(_) | Scalar::Text(_) => None,
    })
}

fn boolean<'de, D: Deserializer<'de>>(from: D) -> Result<Option<bool>, D::Error> {
    Ok(match from.deserialize_any(Any)? {
        Scalar::Other => None,
        Scalar::Bool(boolean) => Some(boolean),
        Scalar::Number(number) => Some(number != 0),
        Scalar::Text(text) => Some(!text.is_empty()),
    })
}

fn text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(match from.deserialize_any(Any)? {
        Scalar::Text(text) => Some(text),
        Scalar::Number(number) => Some(number.to_string()),
        Scalar::Other | Scalar::Bool(_) => None,
    })
}

/// Writes an address type as Node does: 4, 6 and -1 as numbers, `udp4` and `udp6` as text.
fn as_number<S: Serializer>(kind: &Option<String>, to: S) -> Result<S::Ok, S::Error> {
    match kind.as_deref().map(|kind| (kind.parse::<i64>(), kind)) {
        Some((Ok(number), _)) => to.serialize_i64(number),
        Some((Err(_), kind)) => to.serialize_str(kind),
        None => to.serialize_none(),
    }
}

/// A visitor that accepts every value.
struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_bool<E>(self, boolean: bool) -> Result<Scalar, E> {
        Ok(Scalar::Bool(boolean))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Scalar, E> {
        Ok(Scalar::Number(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Scalar, E> {
        Ok(i64::try_from(number).map_or(Scalar::Other, Scalar::Number))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Scalar, E> {
        // A number is exact up to 2^53, and no seq, port or errno is larger.
        let whole = number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0;
        #[allow(clippy::cast_possible_truncation, reason = "whole, and within its range")]
        Ok(if whole { Scalar::Number(number as i64) } else { Scalar::Other })
    }

    fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
        Ok(Scalar::Text(text.to_owned()))
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Scalar, E> {
        Ok(Scalar::Other)
    }

    fn visit_unit<E>(self) -> Result<Scalar, E> {
        Ok(Scalar::Other)
    }

    fn visit_none<E>(self) -> Result<Scalar, E> {
        Ok(Scalar::Other)
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Scalar, D::Error> {
        from.deserialize_any(self)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, from: D) -> Result<Scalar, D::Error> {
        from.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Scalar, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Scalar, A::Error> {
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Message {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn messages_of_node_are_read() {
        let message = read(
            r#"{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":null,"address":null,
                "port":8124,"addressType":4,"backlog":0,"seq":1}"#,
        );
        assert!(message.is_cluster());
        assert_eq!(message.act.as_deref(), Some("queryServer"));
        assert_eq!((message.index, message.port, message.seq), (Some(0), Some(8124), Some(1)));
        assert_eq!(message.address_type.as_deref(), Some("4"));
        assert_eq!((message.address, message.data, message.fd), (None, None, None));

        let message = read(r#"{"cmd":"NODE_CLUSTER","ack":0,"accepted":true,"seq":3}"#);
        assert_eq!((message.ack, message.accepted, message.act), (Some(0), Some(true), None));

        let message = read(
            r#"{"cmd":"NODE_CLUSTER","errno":null,"key":"null:8400:4:undefined:0","ack":1,
                "data":{"a":1},"sockname":{"address":"::","family":"IPv6","port":8400},"seq":0}"#,
        );
        assert_eq!((message.errno, message.ack), (None, Some(1)));
        assert_eq!(message.data, Some(serde_json::json!({ "a": 1 })));
        assert_eq!(
            message.sockname,
            Some(SockName::from("[::]:8400".parse::<SocketAddr>().unwrap()))
        );
    }

    #[test]
    fn a_field_of_the_wrong_type_is_absent() {
        let message = read(
            r#"{"cmd":"NODE_CLUSTER","act":{"a":[1]},"key":7,"ack":1.0,"index":"x","port":1.5,
                "backlog":false,"seq":18446744073709551615,"accepted":null,"fd":[],"more":[{}],
                "sockname":{"port":"8"}}"#,
        );
        assert_eq!((message.act, message.index, message.port), (None, None, None));
        assert_eq!((message.key.as_deref(), message.ack), (Some("7"), Some(1)));
        assert_eq!((message.backlog, message.seq, message.fd), (None, None, None));
        assert_eq!(message.accepted, None);
        assert!(!read(r#"{"cmd":"NODE_DEBUG_ENABLED"}"#).is_cluster());
    }

    #[test]
    fn messages_are_written_as_node_writes_them() {
        let write = |message: &Message| serde_json::to_string(message).unwrap();
        let mut query = Message::act("queryServer", 1);
        query.index = Some(0);
        query.address = Some("127.0.0.1".to_owned());
        (query.port, query.backlog) = (Some(0), Some(511));
        query.address_type = Some("4".to_owned());
        assert_eq!(
            write(&query),
            concat!(
                r#"{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"address":"127.0.0.1","#,
                r#""port":0,"addressType":4,"backlog":511,"seq":1}"#
            )
        );
        query.address_type = Some("udp4".to_owned());
        assert!(write(&query).contains(r#""addressType":"udp4""#));
        let mut reply = Message::answer(1, 0);
        reply.key = Some("1".to_owned());
        reply.data = Some(Value::Null);
        reply.sockname = Some("0.0.0.0:80".parse::<SocketAddr>().unwrap().into());
        assert_eq!(
            write(&reply),
            concat!(
                r#"{"cmd":"NODE_CLUSTER","key":"1","ack":1,"data":null,"#,
                r#""sockname":{"address":"0.0.0.0","family":"IPv4","port":80},"seq":0}"#
            )
        );
    }
}
