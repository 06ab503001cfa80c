//! The registry: every case, role and module, each named by its function.
//!
//! The macros are used as attributes, `#[apply(case)]`, so that a case stays an ordinary function.

/// The way in which the harness runs a case.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    /// A test that runs beside others.
    Ordinary,
    /// A test that runs alone.
    Storm,
    /// A case that only the tests of the harness run, because it fails or hangs.
    Specimen,
}

/// A registered case: the body of a test, in which a panic is a failure.
pub(crate) struct Case {
    path: &'static str,
    pub(crate) kind: Kind,
    /// The tests of Node's own suite whose assertions the case makes.
    pub(crate) node_tests: &'static [&'static str],
    pub(crate) body: fn(),
}

impl Case {
    pub(crate) const fn new(
        path: &'static str,
        kind: Kind,
        node_tests: &'static [&'static str],
        body: fn(),
    ) -> Self {
        Self { path, kind, node_tests, body }
    }

    /// Returns the path of the function, without the name of this program.
    pub(crate) fn name(&self) -> &'static str {
        self.path.split_once("::").expect("a function lies in a module").1
    }
}

/// A program that cases start, with its arguments.
pub(crate) struct Role {
    pub(crate) name: &'static str,
    pub(crate) play: fn(&[String]),
}

/// A function that a fork runs by its name.
pub(crate) struct Module {
    pub(crate) name: &'static str,
    pub(crate) run: fn(),
}

inventory::collect!(Case);
inventory::collect!(Role);
inventory::collect!(Module);

/// Returns every case, in no order.
pub(crate) fn cases() -> impl Iterator<Item = &'static Case> {
    inventory::iter::<Case>()
}

/// Returns every role, in no order.
pub(crate) fn roles() -> impl Iterator<Item = &'static Role> {
    inventory::iter::<Role>()
}

/// Returns every module that can be forked by name.
pub(crate) fn modules() -> Vec<(&'static str, fn())> {
    inventory::iter::<Module>().map(|module| (module.name, module.run)).collect()
}

/// Registers a function as a case that runs beside others.
macro_rules! case {
    ($($function:tt)*) => { $crate::harness::register_case! { Ordinary $($function)* } };
}

/// Registers a function as a case that runs alone.
macro_rules! storm {
    ($($function:tt)*) => { $crate::harness::register_case! { Storm $($function)* } };
}

/// Registers a function as a case that the tests of the harness start by its name.
macro_rules! specimen {
    ($($function:tt)*) => { $crate::harness::register_case! { Specimen $($function)* } };
}

macro_rules! register_case {
    (
        $kind:ident
        $(#[doc = $doc:literal])*
        #[node_test($($node_test:literal),+ $(,)?)]
        $($function:tt)*
    ) => {
        $crate::harness::register_case! {
            $kind [$($node_test),+] $(#[doc = $doc])* $($function)*
        }
    };
    ($kind:ident $([$($node_test:literal),+])? $(#[$meta:meta])* fn $name:ident() $body:block) => {
        $(#[$meta])*
        fn $name() $body

        inventory::submit! {
            $crate::harness::Case::new(
                concat!(module_path!(), "::", stringify!($name)),
                $crate::harness::Kind::$kind,
                &[$($($node_test),+)?],
                $name,
            )
        }
    };
}

/// Registers a function as a role.
macro_rules! role {
    ($(#[$meta:meta])* fn $name:ident($args:tt: &[String]) $body:block) => {
        $(#[$meta])*
        fn $name($args: &[String]) $body

        inventory::submit! {
            $crate::harness::Role { name: stringify!($name), play: $name }
        }
    };
}

/// Registers a function as a module.
macro_rules! module {
    ($(#[$meta:meta])* fn $name:ident() $body:block) => {
        $(#[$meta])*
        fn $name() $body

        inventory::submit! {
            $crate::harness::Module { name: stringify!($name), run: $name }
        }
    };
}

pub(crate) use {case, module, register_case, role, specimen, storm};
