//! The rights of the child: namespaces, user, capabilities, Landlock, filters of system calls.
//!
//! The functions are called in the order in which they stand here. The code runs in the child before
//! its program, and keeps the rules of [`super`].

use std::os::fd::RawFd;
use std::ptr;

use super::{Done, check, errno, set_errno};
use crate::capability::{Half, OF_THIS_THREAD};
use crate::spawn::plan::Step;

/// The rights of a child, in the form that it needs. The engine owns the memory and keeps the
/// descriptors open.
pub(in crate::spawn) struct Confinement<'a> {
    /// −1 for the namespace of the parent.
    pub(in crate::spawn) network_namespace: RawFd,
    /// −1 for the namespace of the parent.
    pub(in crate::spawn) mount_namespace: RawFd,
    /// The capabilities that stay in the bounding set.
    pub(in crate::spawn) bounding: Option<u64>,
    pub(in crate::spawn) groups: Groups<'a>,
    pub(in crate::spawn) gid: Option<u32>,
    pub(in crate::spawn) uid: Option<u32>,
    pub(in crate::spawn) ambient: Option<u64>,
    pub(in crate::spawn) no_new_privileges: bool,
    /// The ruleset, at a number above all targets; −1 for none.
    pub(in crate::spawn) landlock: RawFd,
    pub(in crate::spawn) filters: &'a [libc::sock_fprog],
}

#[derive(Clone, Copy)]
pub(in crate::spawn) enum Groups<'a> {
    Keep,
    /// No groups. A child that stays the same user keeps them where the kernel refuses that.
    Clear,
    Set(&'a [u32]),
}

/// Enters the namespaces. Before the credentials, which the kernel asks for.
pub(super) fn enter_namespaces(plan: &Confinement<'_>) -> Done {
    if plan.network_namespace >= 0 {
        let (fd, kind) = (plan.network_namespace, libc::CLONE_NEWNET);
        // SAFETY: integers only.
        check(Step::NetworkNamespace, unsafe { libc::syscall(libc::SYS_setns, fd, kind) })?;
    }
    if plan.mount_namespace >= 0 {
        let (fd, kind) = (plan.mount_namespace, libc::CLONE_NEWNS);
        // SAFETY: integers only. Root and working directory are the child's own.
        check(Step::MountNamespace, unsafe { libc::syscall(libc::SYS_setns, fd, kind) })?;
    }
    Ok(())
}

/// Changes user, groups and capabilities.
pub(super) fn change_credentials(plan: &Confinement<'_>) -> Done {
    if let Some(kept) = plan.bounding {
        // Before the user, because the kernel asks for `CAP_SETPCAP`.
        drop_bounding(kept)?;
    }
    let raises = plan.ambient.is_some_and(|ambient| ambient != 0);
    if raises && plan.uid.is_some() {
        let keep = libc::PR_SET_KEEPCAPS;
        // SAFETY: integers only. `execve` takes it back.
        let answer = unsafe { libc::syscall(libc::SYS_prctl, keep, 1, 0, 0, 0) };
        check(Step::AmbientCapabilities, answer)?;
    }
    change_ids(plan)?;
    if plan.ambient.is_some() || plan.bounding.is_some() {
        set_inheritable(plan.ambient, plan.bounding.unwrap_or(u64::MAX))?;
    }
    if let Some(ambient) = plan.ambient {
        raise_ambient(ambient)?;
    }
    Ok(())
}

/// Sets groups, group and user. Raw calls, because those of libc would change every thread of the
/// process that libc takes this for.
fn change_ids(plan: &Confinement<'_>) -> Done {
    match plan.groups {
        Groups::Keep => {}
        Groups::Clear => {
            // SAFETY: no list is read when its length is zero.
            let answer = unsafe { libc::syscall(libc::SYS_setgroups, 0usize, ptr::null::<u32>()) };
            if answer < 0 && becomes_another(plan) {
                check(Step::Groups, answer)?;
            }
        }
        Groups::Set(list) => {
            // SAFETY: the list has that many entries.
            let answer = unsafe { libc::syscall(libc::SYS_setgroups, list.len(), list.as_ptr()) };
            check(Step::Groups, answer)?;
        }
    }
    if let Some(gid) = plan.gid {
        // SAFETY: integers only.
        check(Step::Gid, unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })?;
    }
    if let Some(uid) = plan.uid {
        // SAFETY: integers only.
        check(Step::Uid, unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) })?;
    }
    Ok(())
}

/// Returns whether the child becomes another user and has groups, which are those of this user. A
/// child whose groups cannot be counted may have some. Keeps errno.
fn becomes_another(plan: &Confinement<'_>) -> bool {
    let kept = errno();
    // SAFETY: no arguments.
    let user = unsafe { libc::syscall(libc::SYS_geteuid) };
    // SAFETY: no list is written when its length is zero.
    let groups = unsafe { libc::syscall(libc::SYS_getgroups, 0usize, ptr::null_mut::<u32>()) };
    set_errno(kept);
    plan.uid.is_some_and(|uid| i64::from(uid) != user) && groups != 0
}

/// Removes all capabilities but `kept` from the bounding set. Those that are gone already need no
/// privilege.
fn drop_bounding(kept: u64) -> Done {
    let mut number = 0u32;
    while number < u64::BITS {
        let read = libc::PR_CAPBSET_READ;
        // SAFETY: integers only.
        let there = unsafe { libc::syscall(libc::SYS_prctl, read, number, 0, 0, 0) };
        if there < 0 && number > 0 && errno() == libc::EINVAL {
            // The kernel has no capability of this number, nor any of a higher one.
            return Ok(());
        }
        // Any other error is that of a sandbox, behind which the set would silently stay.
        check(Step::BoundingCapabilities, there)?;
        if there > 0 && kept.wrapping_shr(number) & 1 == 0 {
            let remove = libc::PR_CAPBSET_DROP;
            // SAFETY: integers only.
            let answer = unsafe { libc::syscall(libc::SYS_prctl, remove, number, 0, 0, 0) };
            check(Step::BoundingCapabilities, answer)?;
        }
        number = number.wrapping_add(1);
    }
    Ok(())
}

/// Sets the inheritable set to `wanted`, or keeps it, without those that `bounding` lacks. The
/// kernel removes all others from the ambient set. Effective and permitted capabilities stay until
/// `execve`, which computes them anew.
fn set_inheritable(wanted: Option<u64>, bounding: u64) -> Done {
    let mut halves = [Half::default(); 2];
    let header = &raw const OF_THIS_THREAD;
    // SAFETY: a header of the version that writes two halves, which are ours.
    let answer = unsafe { libc::syscall(libc::SYS_capget, header, halves.as_mut_ptr()) };
    check(Step::AmbientCapabilities, answer)?;
    let mut shift = 0u32;
    for half in &mut halves {
        let wanted = wanted.map_or(half.inheritable, |set| set.wrapping_shr(shift) as u32);
        half.inheritable = wanted & bounding.wrapping_shr(shift) as u32;
        shift = shift.wrapping_add(u32::BITS);
    }
    // SAFETY: the header and two halves are readable.
    let answer = unsafe { libc::syscall(libc::SYS_capset, header, halves.as_ptr()) };
    check(Step::AmbientCapabilities, answer)
}

fn raise_ambient(wanted: u64) -> Done {
    let (ambient, raise) = (libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE);
    let mut number = 0u32;
    while number < u64::BITS {
        if wanted.wrapping_shr(number) & 1 == 1 {
            // SAFETY: integers only.
            let answer = unsafe { libc::syscall(libc::SYS_prctl, ambient, raise, number, 0, 0) };
            check(Step::AmbientCapabilities, answer)?;
        }
        number = number.wrapping_add(1);
    }
    Ok(())
}

/// Removes the capabilities of a child that has become another user and executes no program. The
/// kernel removes them only where the user was root; those of any other user stay until `execve`.
pub(super) fn give_up_capabilities(plan: &Confinement<'_>) -> Done {
    if plan.uid.is_none_or(|uid| uid == 0) {
        return Ok(());
    }
    let (header, halves) = (&raw const OF_THIS_THREAD, [Half::default(); 2]);
    // SAFETY: the header and two halves are readable.
    let answer = unsafe { libc::syscall(libc::SYS_capset, header, halves.as_ptr()) };
    check(Step::Uid, answer)
}

/// Forbids new privileges, without which the kernel takes neither a ruleset nor a filter from a
/// process without rights.
pub(super) fn forbid_new_privileges(plan: &Confinement<'_>) -> Done {
    if plan.no_new_privileges {
        let forbid = libc::PR_SET_NO_NEW_PRIVS;
        // SAFETY: integers only.
        let answer = unsafe { libc::syscall(libc::SYS_prctl, forbid, 1, 0, 0, 0) };
        check(Step::NoNewPrivileges, answer)?;
    }
    Ok(())
}

/// Enforces the Landlock ruleset.
pub(super) fn restrict_self(plan: &Confinement<'_>) -> Done {
    if plan.landlock >= 0 {
        let restrict = libc::SYS_landlock_restrict_self;
        // SAFETY: integers only.
        check(Step::Landlock, unsafe { libc::syscall(restrict, plan.landlock, 0) })?;
    }
    Ok(())
}

/// Installs the filters. Last: they may refuse every call of the steps before.
pub(super) fn install_filters(plan: &Confinement<'_>) -> Done {
    for filter in plan.filters {
        let (operation, filter) = (libc::SECCOMP_SET_MODE_FILTER, ptr::from_ref(filter));
        // SAFETY: a program and its length, which the engine owns.
        let answer = unsafe { libc::syscall(libc::SYS_seccomp, operation, 0, filter) };
        check(Step::Seccomp, answer)?;
    }
    Ok(())
}
