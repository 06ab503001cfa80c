//! Parsers of the kernel's files: they turn arbitrary bytes into values and never panic.
//!
//! Pure.

pub(crate) mod cgroup;
pub(crate) mod cpu_list;
pub(crate) mod cpuinfo;

pub(crate) mod meminfo;
pub(crate) mod pressure;
pub(crate) mod stat;

/// Splits the first field off and reads it as a number.
fn number(fields: &mut &[u8]) -> Option<u64> {
    let text = fields.trim_ascii_start();
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = text.split_at(digits);
    // A field such as `12x` is no number.
    if digits.is_empty() || rest.first().is_some_and(|byte| !byte.is_ascii_whitespace()) {
        return None;
    }
    *fields = rest;
    digits
        .iter()
        .try_fold(0u64, |value, digit| value.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
}
