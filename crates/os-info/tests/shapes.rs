//! Tests of the shapes that the feature `serde` gives to results. Results that Node has serialize
//! in Node's shapes.

#![cfg(feature = "serde")]
#![allow(clippy::unwrap_used, reason = "test code")]

use brood_os_info::System;
use serde_json::{Value, json};

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn results_that_node_has_have_its_keys() {
    let cpus = json!(brood_os_info::cpus().unwrap());
    assert_eq!(keys(&cpus[0]), ["model", "speed", "times"]);
    assert_eq!(keys(&cpus[0]["times"]), ["idle", "irq", "nice", "sys", "user"]);
    let user = json!(brood_os_info::user_info().unwrap());
    assert_eq!(keys(&user), ["gid", "homedir", "shell", "uid", "username"]);
    for interface in brood_os_info::network_interfaces().unwrap() {
        for address in &interface.addresses {
            let shape = json!(address);
            assert_eq!(shape.get("scopeid").is_some(), address.address.is_ipv6());
            for key in ["address", "netmask", "family", "mac", "internal", "cidr"] {
                assert!(shape.get(key).is_some(), "{key}");
            }
        }
    }
}

#[test]
fn results_beyond_node_name_their_units() {
    let mut system = System::new();
    let before = system.snapshot().unwrap();
    let usage = json!(system.snapshot().unwrap().since(&before));
    for key in ["cpu", "cpus", "interval", "load", "memory", "memory_available_change_bytes"] {
        assert!(usage.get(key).is_some(), "{key}");
    }
    assert!(json!(before)["cpus"][0]["iowait_ms"].is_u64());
    let limits = json!(brood_os_info::limits().unwrap());
    let all = ["cpu_quota", "cpu_set", "memory", "pids_current", "pids_max", "pressure"];
    assert_eq!(keys(&limits), all);
    assert_eq!(keys(&limits["memory"]), ["current_bytes", "high_bytes", "max_bytes"]);
    assert!(json!(brood_os_info::pressure()).is_object());
    assert!(json!(system.memory().unwrap())["available_bytes"].is_u64());
}
