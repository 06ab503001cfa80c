//! JavaScript values, with everything that structured clone keeps.
//!
//! Pure.

use super::big_int::BigInt;
use super::{read, write};
use std::fmt;

/// The name of an object inside one [`Value`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub(super) usize);

/// A JavaScript value: a root, and the objects that it refers to.
///
/// Objects have identity, so that cycles and sharing are kept: the value owns them, and [`NodeId`]s
/// name them. Two values are equal when they were built in the same order.
///
/// ```
/// use brood_ipc::advanced::{Entry, Item, Key, Node, Value};
///
/// let mut value = Value::default();
/// let object = value.add(Node::Object(vec![]));
/// value.set_root(Item::Object(object));
/// let itself = Entry { key: Key::from("me"), item: Item::Object(object) };
/// *value.node_mut(object) = Node::Object(vec![itself]);
/// let bytes = value.to_bytes();
/// assert_eq!(Value::from_bytes(&bytes), Ok(value));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Value {
    root: Item,
    nodes: Vec<Node>,
}

/// A JavaScript value in one place: a primitive, or a reference to an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Item {
    /// `undefined`.
    #[default]
    Undefined,
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number that V8 holds as a small integer.
    Int(i32),
    /// Any other number.
    Double(f64),
    /// A `BigInt`.
    BigInt(BigInt),
    /// A string.
    String(Text),
    /// An object.
    Object(NodeId),
}

/// The key of a property.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// An array index.
    Index(u32),
    /// Any other key.
    Name(Text),
}

/// A property of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// The value.
    pub item: Item,
}

/// A JavaScript object.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Node {
    /// A plain object.
    Object(Vec<Entry>),
    /// An array without gaps, and its further properties. `None` is a hole that was made later.
    Array {
        /// The elements.
        items: Vec<Option<Item>>,
        /// Properties that are not elements.
        extra: Vec<Entry>,
    },
    /// An array with gaps.
    Sparse {
        /// The value of `length`.
        length: u32,
        /// The elements that exist, and further properties.
        entries: Vec<Entry>,
    },
    /// A `Date`, in milliseconds since 1970; NaN when invalid.
    Date(f64),
    /// A regular expression.
    RegExp {
        /// The text between the slashes.
        source: Text,
        /// The flags, as a sum of g 1, i 2, m 4, y 8, u 16, s 32, l 64, d 128, v 256.
        flags: u32,
    },
    /// A `Map`.
    Map(Vec<(Item, Item)>),
    /// A `Set`.
    Set(Vec<Item>),
    /// `new Boolean(…)`.
    Boolean(bool),
    /// `new Number(…)`.
    Number(f64),
    /// `Object(1n)`.
    BigInt(BigInt),
    /// `new String(…)`.
    String(Text),
    /// An `Error`.
    Error {
        /// The built-in class.
        kind: ErrorKind,
        /// The message.
        message: Option<Text>,
        /// The cause.
        cause: Option<Item>,
        /// The stack.
        stack: Option<Text>,
    },
    /// An `ArrayBuffer`.
    ArrayBuffer(Vec<u8>),
    /// An `ArrayBuffer` that was made with `maxByteLength`. Node writes one from version 20 on.
    ResizableArrayBuffer {
        /// The content.
        bytes: Vec<u8>,
        /// The value of `maxByteLength`, in bytes, at least the length of the content.
        bytes_max: u32,
    },
    /// A view on an `ArrayBuffer` that is an object of its own. Node never writes one.
    BufferView {
        /// The buffer.
        buffer: NodeId,
        /// V8's letter for the kind of view.
        letter: u8,
        /// The position of the view in the buffer, in bytes.
        offset: u32,
        /// The length of the view, in bytes.
        length: u32,
        /// V8's flags.
        flags: u32,
    },
    /// A typed array, `DataView` or `Buffer`, as Node writes them.
    View {
        /// The kind of view.
        kind: ViewKind,
        /// The content.
        bytes: Vec<u8>,
    },
    /// A native object, as a plain copy.
    Host(Item),
}

/// The kinds of [`Node::View`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the names are JavaScript's")]
pub enum ViewKind {
    Int8 = 0,
    Uint8 = 1,
    Uint8Clamped = 2,
    Int16 = 3,
    Uint16 = 4,
    Int32 = 5,
    Uint32 = 6,
    Float32 = 7,
    Float64 = 8,
    DataView = 9,
    Buffer = 10,
    BigInt64 = 11,
    BigUint64 = 12,
    /// From Node 24 on.
    Float16 = 13,
}

impl ViewKind {
    pub(super) fn from_number(number: u32) -> Option<ViewKind> {
        use ViewKind as K;
        const ALL: [ViewKind; 14] = [
            K::Int8,
            K::Uint8,
            K::Uint8Clamped,
            K::Int16,
            K::Uint16,
            K::Int32,
            K::Uint32,
            K::Float32,
            K::Float64,
            K::DataView,
            K::Buffer,
            K::BigInt64,
            K::BigUint64,
            K::Float16,
        ];
        ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// Returns the length of one element, in bytes.
    #[must_use]
    pub fn element_bytes(self) -> usize {
        use ViewKind as K;
        match self {
            K::Int8 | K::Uint8 | K::Uint8Clamped | K::DataView | K::Buffer => 1,
            K::Int16 | K::Uint16 | K::Float16 => 2,
            K::Int32 | K::Uint32 | K::Float32 => 4,
            K::Float64 | K::BigInt64 | K::BigUint64 => 8,
        }
    }
}

/// The built-in kinds of errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are JavaScript's")]
pub enum ErrorKind {
    #[default]
    Error,
    EvalError,
    RangeError,
    ReferenceError,
    SyntaxError,
    TypeError,
    UriError,
}

impl ErrorKind {
    /// V8's letters. A plain `Error` has none.
    pub(super) const LETTERS: [(u8, ErrorKind); 6] = [
        (b'E', ErrorKind::EvalError),
        (b'R', ErrorKind::RangeError),
        (b'F', ErrorKind::ReferenceError),
        (b'S', ErrorKind::SyntaxError),
        (b'T', ErrorKind::TypeError),
        (b'U', ErrorKind::UriError),
    ];

    /// Returns the name of the JavaScript class.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ErrorKind::Error => "Error",
            ErrorKind::EvalError => "EvalError",
            ErrorKind::RangeError => "RangeError",
            ErrorKind::ReferenceError => "ReferenceError",
            ErrorKind::SyntaxError => "SyntaxError",
            ErrorKind::TypeError => "TypeError",
            ErrorKind::UriError => "URIError",
        }
    }
}

/// A JavaScript string: UTF-16, with lone surrogates allowed.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text(Vec<u16>);

impl Text {
    /// Makes a string of UTF-16 code units.
    #[must_use]
    pub fn from_units(units: Vec<u16>) -> Text {
        Text(units)
    }

    /// Returns the UTF-16 code units.
    #[must_use]
    pub fn units(&self) -> &[u16] {
        &self.0
    }

    /// Returns the text as a Rust string, or `None` when it has a lone surrogate.
    #[must_use]
    pub fn to_str(&self) -> Option<String> {
        String::from_utf16(&self.0).ok()
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Text {
        Text(text.encode_utf16().collect())
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf16_lossy(&self.0))
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf16_lossy(&self.0), f)
    }
}

impl From<&str> for Key {
    /// Makes an index of a canonical array index, as JavaScript does, and a name of any other text.
    fn from(text: &str) -> Key {
        match text.parse::<u32>() {
            Ok(index) if index != u32::MAX && index.to_string() == text => Key::Index(index),
            _ => Key::Name(text.into()),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Index(index) => write!(f, "{index}"),
            Key::Name(name) => write!(f, "{name}"),
        }
    }
}

impl Value {
    /// Makes a value without objects.
    #[must_use]
    pub fn primitive(root: Item) -> Value {
        Value { root, nodes: Vec::new() }
    }

    /// Adds an object, which becomes a part of the value when an item refers to it.
    pub fn add(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        NodeId(self.nodes.len() - 1)
    }

    /// Sets the root.
    pub fn set_root(&mut self, root: Item) {
        self.root = root;
    }

    /// Reads V8's format, versions 13 to 15.
    ///
    /// # Errors
    ///
    /// A description of the malformed part.
    pub fn from_bytes(bytes: &[u8]) -> Result<Value, String> {
        read::read(bytes)
    }

    /// Writes V8's format, version 15, as Node does.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        write::write(self)
    }

    /// Returns the root.
    #[must_use]
    pub fn root(&self) -> &Item {
        &self.root
    }

    /// Returns an object.
    ///
    /// # Panics
    ///
    /// Panics when `id` belongs to another value.
    #[must_use]
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// Returns an object for changes.
    ///
    /// # Panics
    ///
    /// Panics when `id` belongs to another value.
    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.0]
    }

    /// Returns the property `key` of an object, if `item` is an object and has the property.
    #[must_use]
    pub fn get(&self, item: &Item, key: &str) -> Option<&Item> {
        let Item::Object(id) = item else { return None };
        let (Node::Object(entries)
        | Node::Sparse { entries, .. }
        | Node::Array { extra: entries, .. }) = self.node(*id)
        else {
            return None;
        };
        let key = Key::from(key);
        entries.iter().find(|entry| entry.key == key).map(|entry| &entry.item)
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter()
    }

    pub(super) fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// Moves the objects of `other` into this value, and returns the root of `other` as an item.
    pub(super) fn graft(&mut self, other: Value) -> Item {
        let base = self.nodes.len();
        let move_item = |item: &mut Item| {
            if let Item::Object(id) = item {
                id.0 += base;
            }
        };
        let mut root = other.root;
        move_item(&mut root);
        for mut node in other.nodes {
            for_each_item(&mut node, move_item);
            if let Node::BufferView { buffer, .. } = &mut node {
                buffer.0 += base;
            }
            self.nodes.push(node);
        }
        root
    }
}

fn for_each_item(node: &mut Node, mut act: impl FnMut(&mut Item)) {
    match node {
        Node::Object(entries) | Node::Sparse { entries, .. } => {
            entries.iter_mut().for_each(|entry| act(&mut entry.item));
        }
        Node::Array { items, extra } => {
            items.iter_mut().flatten().for_each(&mut act);
            extra.iter_mut().for_each(|entry| act(&mut entry.item));
        }
        Node::Map(pairs) => pairs.iter_mut().for_each(|(key, value)| {
            act(key);
            act(value);
        }),
        Node::Set(items) => items.iter_mut().for_each(act),
        Node::Error { cause, .. } => cause.iter_mut().for_each(act),
        Node::Host(item) => act(item),
        Node::Date(_)
        | Node::RegExp { .. }
        | Node::Boolean(_)
        | Node::Number(_)
        | Node::BigInt(_)
        | Node::String(_)
        | Node::ArrayBuffer(_)
        | Node::ResizableArrayBuffer { .. }
        | Node::BufferView { .. }
        | Node::View { .. } => {}
    }
}
