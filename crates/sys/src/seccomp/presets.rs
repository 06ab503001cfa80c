//! Filters that suit most servers: no calls that reach other processes or make namespaces, and no
//! `execve`.

use super::{Argument, Denied, Filter, Test};

/// Calls that administer the machine, debug other processes, or have a long record of faults. A
/// server without rights needs none of them.
const ADMINISTRATION: &[libc::c_long] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_kcmp,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_madvise,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
];

#[cfg(target_arch = "x86_64")]
const OF_THIS_PLATFORM: &[libc::c_long] = &[libc::SYS_ioperm, libc::SYS_iopl, libc::SYS_uselib];
#[cfg(not(target_arch = "x86_64"))]
const OF_THIS_PLATFORM: &[libc::c_long] = &[];

/// The flags of `clone` that make namespaces. The bits of `CLONE_NEWTIME` are those of an exit
/// signal there.
const NAMESPACES: i32 = libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWUTS;

const EPERM: i32 = libc::EPERM;

const fn whole(number: libc::c_long, errno: i32) -> Denied {
    Denied { number, when: None, errno }
}

const fn part(number: libc::c_long, index: u8, test: Test, errno: i32) -> Denied {
    Denied { number, when: Some(Argument { index, test }), errno }
}

/// The ways to TCP that Landlock's rules for ports do not see: MPTCP, SMC, which falls back to TCP,
/// connecting with the first bytes, and calls through `io_uring`.
const AROUND_PORTS: &[Denied] = {
    const MPTCP: u32 = 262;
    const AF_SMC: u32 = 43;
    const SMC: u32 = 256;
    const FAST_OPEN: Test = Test::HasAny(libc::MSG_FASTOPEN as u32);
    &[
        whole(libc::SYS_io_uring_setup, libc::ENOSYS),
        part(libc::SYS_socket, 2, Test::Is(MPTCP), libc::EPROTONOSUPPORT),
        part(libc::SYS_socket, 0, Test::Is(AF_SMC), libc::EAFNOSUPPORT),
        part(libc::SYS_socket, 2, Test::Is(SMC), libc::EPROTONOSUPPORT),
        part(libc::SYS_sendto, 3, FAST_OPEN, libc::EOPNOTSUPP),
        part(libc::SYS_sendmsg, 2, FAST_OPEN, libc::EOPNOTSUPP),
        part(libc::SYS_sendmmsg, 3, FAST_OPEN, libc::EOPNOTSUPP),
    ]
};

impl Filter {
    /// Returns a filter that refuses what a server does not need: mounts, namespaces, `ptrace` and
    /// the memory of other processes, kernel modules, keys, BPF, clocks, and input for the terminal.
    /// The calls of [`around_ports`](Self::around_ports) are refused as well.
    ///
    /// Refused calls fail with `EPERM`, and `clone3` with `ENOSYS`, after which libc uses an older
    /// call.
    ///
    /// # Panics
    ///
    /// Never: the list is constant.
    #[must_use]
    pub fn for_servers() -> Self {
        let all = ADMINISTRATION.iter().chain(OF_THIS_PLATFORM);
        let mut denied: Vec<Denied> = all.map(|number| whole(*number, EPERM)).collect();
        denied.extend_from_slice(AROUND_PORTS);
        denied.extend([
            part(libc::SYS_clone, 0, Test::HasAny(NAMESPACES as u32), EPERM),
            // The flags of `clone3` are in memory, where no filter can read them.
            whole(libc::SYS_clone3, libc::ENOSYS),
            part(libc::SYS_ioctl, 1, Test::Is(libc::TIOCSTI as u32), EPERM),
            part(libc::SYS_ioctl, 1, Test::Is(libc::TIOCLINUX as u32), EPERM),
        ]);
        Self::deny(&denied).expect("the list is short, and its arguments exist")
    }

    /// Returns a filter that refuses the ways to TCP that Landlock's rules for ports do not see: MPTCP
    /// and SMC with `EPROTONOSUPPORT`, or `EAFNOSUPPORT` for SMC by its address family, connecting by
    /// `MSG_FASTOPEN` with `EOPNOTSUPP`, and `io_uring` with `ENOSYS`.
    ///
    /// # Panics
    ///
    /// Never: the list is constant.
    #[must_use]
    pub fn around_ports() -> Self {
        Self::deny(AROUND_PORTS).expect("the list is short, and its arguments exist")
    }

    /// Returns a filter that refuses to execute programs, with `EPERM`. For a process that has
    /// executed its own.
    ///
    /// # Panics
    ///
    /// Never: the list is constant.
    #[must_use]
    pub fn without_execve() -> Self {
        let denied = [whole(libc::SYS_execve, EPERM), whole(libc::SYS_execveat, EPERM)];
        Self::deny(&denied).expect("the list is short")
    }
}

#[cfg(test)]
mod tests {
    use super::super::{NATIVE, OFFSET_OF_ARCHITECTURE, OFFSET_OF_ARGUMENTS, OFFSET_OF_NUMBER};
    use super::*;

    /// Runs the filter as the kernel does, and returns its answer to a call.
    fn answer(filter: &Filter, number: libc::c_long, arguments: [u32; 6]) -> u32 {
        let (mut at, mut loaded) = (0, 0);
        loop {
            let instruction = filter.0[at];
            let (code, operand) = (u32::from(instruction.code), instruction.operand);
            let is_true = match code & !libc::BPF_JMP {
                _ if code == libc::BPF_RET => return operand,
                _ if code == libc::BPF_LD | libc::BPF_ABS => {
                    loaded = match operand {
                        OFFSET_OF_NUMBER => number as u32,
                        OFFSET_OF_ARCHITECTURE => NATIVE,
                        offset => arguments[(offset - OFFSET_OF_ARGUMENTS) as usize / 8],
                    };
                    false
                }
                libc::BPF_JEQ => loaded == operand,
                libc::BPF_JGE => loaded >= operand,
                libc::BPF_JSET => loaded & operand != 0,
                other => panic!("no filter has the operation {other:#x}"),
            };
            let skipped = if is_true { instruction.jump_true } else { instruction.jump_false };
            at += 1 + usize::from(skipped);
        }
    }

    #[test]
    fn sockets_that_become_tcp_behind_the_rules_for_ports_are_refused() {
        let refused = |errno: i32| libc::SECCOMP_RET_ERRNO | errno as u32;
        let stream = libc::SOCK_STREAM as u32;
        let (smc, inet, inet6) = (43, libc::AF_INET as u32, libc::AF_INET6 as u32);
        for filter in [Filter::around_ports(), Filter::for_servers()] {
            let socket = |family, protocol| {
                answer(&filter, libc::SYS_socket, [family, stream, protocol, 0, 0, 0])
            };
            assert_eq!(socket(inet, 0), libc::SECCOMP_RET_ALLOW);
            assert_eq!(socket(inet6, libc::IPPROTO_TCP as u32), libc::SECCOMP_RET_ALLOW);
            // MPTCP, and SMC by its protocol and by its family.
            assert_eq!(socket(inet, 262), refused(libc::EPROTONOSUPPORT));
            assert_eq!(socket(inet, 256), refused(libc::EPROTONOSUPPORT));
            assert_eq!(socket(smc, 0), refused(libc::EAFNOSUPPORT));
            assert_eq!(socket(smc, 1), refused(libc::EAFNOSUPPORT));
        }
    }
}
