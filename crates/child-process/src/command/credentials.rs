//! The user and the groups of a child.

use std::ffi::OsStr;

use super::Command;

impl Command {
    /// Sets the user of the child by name: its uid, its gid and its supplementary groups are those
    /// of the user database, which each start reads anew in this process.
    ///
    /// [`uid`](Self::uid), [`gid`](Self::gid) and [`groups`](Self::groups) replace the part that
    /// they name, in any order of the calls. The environment does not change: a program that needs
    /// `HOME` or `USER` gets them by [`env`](Self::env).
    ///
    /// The start fails with [`Error::Invalid`](crate::Error::Invalid) when there is no user of this
    /// name, and with [`Error::Os`](crate::Error::Os) when the database cannot be read. It fails
    /// with the [`Step`](crate::Step) `Groups`, `Gid` or `Uid` and `EPERM` when this process may not
    /// become the user: a child never runs with a part of the change. A program that is linked
    /// statically with musl reads `/etc/passwd` and `/etc/group` and no other database. See
    /// `getpwnam(3)` and `getgrouplist(3)`.
    ///
    /// ```
    /// use brood_child_process::{Command, Error};
    ///
    /// let error = Command::new("true").user("no such user").spawn().unwrap_err();
    /// assert!(matches!(error, Error::Invalid(_)));
    /// ```
    pub fn user(&mut self, name: impl AsRef<OsStr>) -> &mut Self {
        self.user = Some(name.as_ref().to_owned());
        self
    }

    /// Sets the user of the child.
    ///
    /// The child loses its supplementary groups unless [`groups`](Self::groups) sets them. The start
    /// fails if the kernel refuses that to a child that becomes another user.
    ///
    /// The group does not change unless [`gid`](Self::gid) sets it, as in Node: a child of root then
    /// still has the group of root, with all that this group may read and write.
    /// [`user`](Self::user) changes all three.
    pub fn uid(&mut self, uid: u32) -> &mut Self {
        self.attributes.uid = Some(uid);
        self
    }

    /// Sets the group of the child.
    pub fn gid(&mut self, gid: u32) -> &mut Self {
        self.attributes.gid = Some(gid);
        self
    }

    /// Sets the supplementary groups of the child.
    pub fn groups(&mut self, groups: impl IntoIterator<Item = u32>) -> &mut Self {
        self.attributes.groups = Some(groups.into_iter().collect());
        self
    }
}
