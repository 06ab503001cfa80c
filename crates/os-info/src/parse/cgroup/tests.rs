//! Tests with recorded contents of `/proc/self/cgroup` and `mountinfo`, and with arbitrary bytes.

use proptest::prelude::*;

use super::*;

const HYBRID: &[u8] = include_bytes!("../../../recorded/cgroup/hybrid.cgroup");
const HYBRID_MOUNTS: &[u8] = include_bytes!("../../../recorded/cgroup/hybrid.mountinfo");
const UNIFIED: &[u8] = include_bytes!("../../../recorded/cgroup/v2.cgroup");
const UNIFIED_MOUNTS: &[u8] = include_bytes!("../../../recorded/cgroup/v2.mountinfo");
const V1: &[u8] = include_bytes!("../../../recorded/cgroup/v1-docker.cgroup");
const V1_MOUNTS: &[u8] = include_bytes!("../../../recorded/cgroup/v1-docker.mountinfo");

fn directories(membership: &[u8], mountinfo: &[u8], controller: &str) -> Vec<String> {
    let group = group(membership, controller).unwrap();
    let mount = mount(mountinfo, &group, controller).unwrap();
    levels(group.path, &mount).directories.iter().map(|level| level.display().to_string()).collect()
}

#[test]
fn v2_names_each_level_from_the_group_to_the_root() {
    assert_eq!(group(UNIFIED, "cpu").unwrap().version, Version::V2);
    let expected = [
        "/sys/fs/cgroup/user.slice/user-1000.slice/session-3.scope",
        "/sys/fs/cgroup/user.slice/user-1000.slice",
        "/sys/fs/cgroup/user.slice",
        "/sys/fs/cgroup/",
    ];
    assert_eq!(directories(UNIFIED, UNIFIED_MOUNTS, "cpu"), expected);
}

#[test]
fn on_a_hybrid_system_a_controller_of_v1_is_not_in_v2() {
    assert_eq!(group(HYBRID, "cpu").unwrap().version, Version::V1);
    assert_eq!(directories(HYBRID, HYBRID_MOUNTS, "cpu"), ["/sys/fs/cgroup/cpu/"]);
    assert_eq!(
        directories(HYBRID, HYBRID_MOUNTS, "memory"),
        ["/sys/fs/cgroup/memory/job/7", "/sys/fs/cgroup/memory/job", "/sys/fs/cgroup/memory/"]
    );
    assert_eq!(group(HYBRID, "io").unwrap().version, Version::V2);
    assert_eq!(directories(HYBRID, HYBRID_MOUNTS, "io"), ["/sys/fs/cgroup/unified/"]);
}

#[test]
fn a_container_that_sees_only_its_own_group_finds_it_at_the_mount() {
    let cpu = group(V1, "cpu").unwrap();
    assert_eq!((cpu.version, cpu.controllers), (Version::V1, &b"cpu,cpuacct"[..]));
    assert_eq!(directories(V1, V1_MOUNTS, "cpu"), ["/sys/fs/cgroup/cpu,cpuacct/"]);
    assert_eq!(directories(V1, V1_MOUNTS, "memory"), ["/sys/fs/cgroup/memory/"]);
}

#[test]
fn a_group_outside_of_the_mount_has_the_root_of_the_mount() {
    let mount = Mount { root: "/a".into(), point: "/m".into() };
    for outside in ["/b/c", "/", "", "relative"] {
        check(outside, "/a", &["/m/"], true);
    }
    check("/a/x", "/a", &["/m/x", "/m/"], true);
    assert_eq!(levels(b"/a", &mount).directories, [PathBuf::from("/m/")]);
}

/// Checks the levels of `group` below `/m`, where the group `root` is mounted.
#[track_caller]
fn check(group: &str, root: &str, directories: &[&str], shows_group: bool) {
    let found = levels(group.as_bytes(), &Mount { root: root.into(), point: "/m".into() });
    let directories = directories.iter().map(PathBuf::from).collect();
    assert_eq!(found, Levels { directories, shows_group }, "{group} in {root}");
}

#[test]
fn a_namespace_without_mounts_of_its_own_has_the_parents_that_it_sees() {
    // The mount shows a parent of the namespace, which may limit the group, but is not the group.
    check("/", "/..", &["/m/"], false);
    check("/", "/../..", &["/m/"], false);
    check("/c", "/../..", &["/m/"], false);
    check("/../x", "/../..", &["/m/"], false);
    // The kernel names the way back once the group has left the namespace.
    check("/../x/y", "/..", &["/m/x/y", "/m/x", "/m/"], true);
    check("/../x", "/../x", &["/m/"], true);
    check("/../../x", "/../..", &["/m/x", "/m/"], true);
}

#[test]
fn groups_that_do_not_contain_the_process_are_nothing() {
    for (group, root) in [
        ("/../x", "/"),
        ("/..", "/"),
        ("/../x", "/../y"),
        ("/", "/../y"),
        ("/c", "/../y/z"),
        ("/../../x", "/.."),
        ("/a/../../etc", "/a"),
        ("/a/../../etc", "/"),
    ] {
        check(group, root, &[], false);
    }
}

#[test]
fn a_mount_that_shows_the_group_is_preferred() {
    let mounts = b"1 2 0:9 /other /first rw - cgroup2 cgroup2 rw\n\
        3 2 0:9 /mine /second\\040place rw shared:1 master:2 - cgroup2 cgroup2 rw\n";
    let group = Group { version: Version::V2, controllers: b"", path: b"/mine/a" };
    let found = mount(mounts, &group, "cpu").unwrap();
    assert_eq!(found, Mount { root: "/mine".into(), point: "/second place".into() });
    let elsewhere = Group { path: b"/x", ..group };
    assert_eq!(mount(mounts, &elsewhere, "cpu").unwrap().point, Path::new("/first"));
}

#[test]
fn a_mount_of_groups_that_do_not_contain_the_process_is_passed_over() {
    let mounts = b"1 2 0:9 /../y /sibling rw - cgroup2 cgroup2 rw\n\
        3 2 0:9 /.. /parent rw - cgroup2 cgroup2 rw\n\
        4 2 0:9 / /own rw - cgroup2 cgroup2 rw\n";
    let group = Group { version: Version::V2, controllers: b"", path: b"/" };
    let without = |lines: usize| {
        let kept: Vec<_> = mounts.split_inclusive(|byte| *byte == b'\n').take(lines).collect();
        mount(&kept.concat(), &group, "cpu").map(|mount| mount.point)
    };
    assert_eq!(without(3), Some("/own".into()));
    assert_eq!(without(2), Some("/parent".into()));
    assert_eq!(without(1), None);
}

#[test]
fn quotas_are_read_in_both_spellings() {
    let quota = |quota_us, period_us| {
        Some(CpuQuota { quota_us, period_us: NonZeroU64::new(period_us).unwrap() })
    };
    assert_eq!(cpu_max(b"150000 100000\n"), quota(150_000, 100_000));
    assert_eq!(cfs(b"50000\n", b"100000\n"), quota(50_000, 100_000));
    for none in [&b"max 100000\n"[..], b"", b"\n", b"1", b"1 0", b"-1 100000", b"x y", b"+5 5"] {
        assert_eq!(cpu_max(none), None);
        assert_eq!(cpu_max(&[none, b"\n"].concat()), None);
    }
    assert_eq!(cfs(b"-1\n", b"100000\n"), None);
    assert_eq!(cfs(b"1000\n", b"0\n"), None);
}

#[test]
fn a_quota_of_one_and_a_half_counts_as_two_and_none_as_less_than_one() {
    let parallelism = |text: &[u8]| cpu_max(text).unwrap().parallelism();
    assert_eq!(parallelism(b"150000 100000\n"), 2);
    assert_eq!(parallelism(b"200000 100000\n"), 2);
    assert_eq!(parallelism(b"200001 100000\n"), 3);
    assert_eq!(parallelism(b"1000 100000\n"), 1);
    assert_eq!(parallelism(b"0 100000\n"), 1);
    assert_eq!(cpu_max(b"150000 100000\n").unwrap().cpus(), 1.5);
}

#[test]
fn the_stricter_quota_is_the_smaller_share_not_the_smaller_number() {
    let (small, large) = (cpu_max(b"100000 100000\n").unwrap(), cpu_max(b"90000 10000\n").unwrap());
    assert_eq!(small.stricter(large), small);
    assert_eq!(large.stricter(small), small);
}

#[test]
fn every_spelling_of_no_limit_is_recognized() {
    assert_eq!(limit(b"max\n"), None);
    assert_eq!(limit(b"1048576\n"), Some(1 << 20));
    assert_eq!(limit(b"99999999999999999999999\n"), None);
    assert_eq!(limit_v1(b"9223372036854771712\n"), None);
    assert_eq!(limit_v1(b"9223372036854710272\n"), None);
    assert_eq!(limit_v1(b"536870912\n"), Some(512 << 20));
}

#[test]
fn a_value_that_was_cut_off_is_no_value() {
    let quota = b"150000 100000\n";
    assert!((0..quota.len()).all(|length| cpu_max(&quota[..length]).is_none()));
    let number = b"1048576\n";
    for cut in (0..number.len()).map(|length| &number[..length]) {
        assert_eq!(
            (limit(cut), limit_v1(cut), cfs(cut, number), cfs(number, cut)),
            (None, None, None, None)
        );
    }
}

#[test]
fn files_without_groups_have_none() {
    for bytes in [&b""[..], b"\n\n", b"0:", b"0::", b"garbage", b"4:cpu", b"\xff\xfe\x00:\n::"] {
        let found = group(bytes, "cpu");
        assert!(found.is_none() || found.unwrap().path.is_empty());
    }
}

#[test]
fn escapes_of_three_octal_digits_are_decoded_and_all_else_stays() {
    for (escaped, plain) in [
        (&br"a\040b\134c\011"[..], &b"a b\\c\t"[..]),
        (br"\377\123", b"\xffS"),
        (br"\400\08x\04", br"\400\08x\04"),
        (br"\\040\", b"\\ \\"),
    ] {
        assert_eq!(unescape(escaped), plain, "{}", escaped.escape_ascii());
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(
        membership in lines(), mounts in lines(), group_path in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        if let Some(group) = group(&membership, "cpu") {
            if let Some(mount) = mount(&mounts, &group, "cpu") {
                for path in [group.path, &group_path] {
                    let levels = levels(path, &mount);
                    let directories = levels.directories;
                    prop_assert_eq!(directories.is_empty(), view(path, &mount) == View::Nothing);
                    prop_assert!(directories.iter().all(|level| level.starts_with(&mount.point)));
                }
            }
        }
        if let Some(quota) = cpu_max(&membership) {
            prop_assert!(quota.parallelism() >= 1);
        }
        let _ = (cfs(&membership, &mounts), limit_v1(&mounts), unescape(&mounts));
    }

    #[test]
    fn a_quota_never_allows_less_than_its_share(quota in any::<u64>(), period in 1..=u64::MAX) {
        let quota = cpu_max(format!("{quota} {period}\n").as_bytes()).unwrap();
        prop_assert!(quota.parallelism() as f64 >= quota.cpus() * 0.999_999);
    }
}

/// Bytes that look a little like the kernel's, so that more than the first field is reached.
fn lines() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"0::/".to_vec()),
        Just(b"4:cpu,cpuacct:/a".to_vec()),
        Just(b"1 2 0:9 /a /m\\0401\\04 rw - cgroup2 x rw,cpu".to_vec()),
        Just(b"1 2 0:9 / /m rw - cgroup x rw,cpu".to_vec()),
        Just(b"\n".to_vec()),
        Just(b" ".to_vec()),
        Just(b"/..".to_vec()),
        prop::collection::vec(any::<u8>(), 0..12),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}
