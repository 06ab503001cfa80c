//! Every kind of value that V8 writes, from a script to this program and back.

use child_process::Fork;
use ipc::Serialization;
use ipc::advanced::{Item, Value};

use crate::harness::{apply, case};
use crate::support::node::{self, Script};

#[apply(case)]
fn every_value_that_node_writes_comes_back_to_it_unchanged() {
    let Some(node) = node::node() else { return };
    let mut fork = Fork::new(node::script("every_value.cjs"));
    fork.exec_path(&node).serialization(Serialization::Advanced);
    let script = Script::start(fork);
    let (mut sent, mut refused) = (0, Vec::new());
    loop {
        let value = script.value::<Value>();
        if matches!(value.root(), Item::String(_)) {
            break;
        }
        match script.child.send(&value) {
            Ok(_) => sent += 1,
            Err(error) => refused.push(format!("{error}: {value:?}")),
        }
    }
    script.child.send("done").unwrap();
    let (compared, failures) = script.value::<(usize, Vec<String>)>();
    assert_eq!((refused, failures), (Vec::new(), Vec::new()));
    assert!(compared == sent && compared > 200, "{compared} of {sent}");
    script.ends_well();
}

/// The features of newer versions are refused towards a peer that may not know them: its V8 would
/// end the process.
#[apply(case)]
fn a_value_that_not_every_node_reads_is_refused_until_the_script_has_sent_one() {
    let Some(mut fork) = node::peer() else { return };
    fork.serialization(Serialization::Advanced);
    let script = Script::start(fork);
    // A resizable buffer, as Node 20 writes it.
    let value = Value::from_bytes(b"\xff\x0f~\x04\x10\0\0\0\0").unwrap();
    let refused = script.child.send(&value).unwrap_err();
    assert!(refused.to_string().contains("a resizable buffer"), "{refused}");
    script.asks(&serde_json::json!({
        "do": "values", "expressions": ["new ArrayBuffer(4, { maxByteLength: 16 })"],
    }));
    let written = script.value::<Value>();
    if written == value {
        script.child.send(&value).unwrap();
        assert_eq!(script.value::<Value>(), value);
    }
    script.ends_well();
}
