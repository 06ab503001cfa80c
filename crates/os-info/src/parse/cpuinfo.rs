//! `/proc/cpuinfo`: the model of each CPU. Every architecture has a format of its own.
//!
//! Pure.

/// The facts that the file states about one CPU.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Model {
    pub(crate) id: u32,
    pub(crate) name: Option<String>,
    pub(crate) speed_mhz: Option<f64>,
    pub(crate) implementer: Option<u32>,
    pub(crate) part: Option<u32>,
}

/// Returns the CPUs of the file, in the order of the file. Text that is not UTF-8 gets replacement
/// characters.
pub(crate) fn models(cpuinfo: &[u8]) -> Vec<Model> {
    let mut models: Vec<Model> = Vec::new();
    for line in cpuinfo.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (key, value) = (line[..colon].trim_ascii(), line[colon + 1..].trim_ascii());
        if key == b"processor" {
            // Old 32-bit ARM kernels also write the name of the model in a line with this key. The
            // value is then no number, and the line begins no new CPU.
            if let Ok(id) = text(value).parse() {
                models.push(Model { id, ..Model::default() });
            }
            continue;
        }
        let Some(model) = models.last_mut() else { continue };
        match key {
            b"model name" | b"Model Name" | b"cpu model" | b"cpu" | b"uarch"
                if !value.is_empty() =>
            {
                model.name.get_or_insert_with(|| text(value));
            }
            b"cpu MHz" | b"CPU MHz" | b"cpu MHz dynamic" | b"clock" => {
                model.speed_mhz = speed(value);
            }
            b"CPU implementer" => model.implementer = hexadecimal(value),
            b"CPU part" => model.part = hexadecimal(value),
            _ => {}
        }
    }
    for model in &mut models {
        // arm64 states numbers in the place of a name.
        if model.name.is_none() {
            model.name = model.implementer.zip(model.part).and_then(arm_model);
        }
    }
    models
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}

/// Reads a speed: `2596.094` or `2425.000000MHz`.
fn speed(value: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(value).ok()?;
    let speed: f64 = text.trim_end_matches("MHz").parse().ok()?;
    (speed.is_finite() && (0.0..1e7).contains(&speed)).then_some(speed)
}

fn hexadecimal(value: &[u8]) -> Option<u32> {
    let digits = std::str::from_utf8(value).ok()?.strip_prefix("0x")?;
    u32::from_str_radix(digits, 16).ok()
}

/// Returns the name of the part, or its numbers where the table lacks it.
fn arm_model((implementer, part): (u32, u32)) -> Option<String> {
    let known = ARM_PARTS.iter().find(|(i, p, _)| (*i, *p) == (implementer, part));
    Some(match known {
        Some((_, _, name)) => (*name).to_owned(),
        None => format!("ARM implementer {implementer:#04x} part {part:#05x}"),
    })
}

/// Implementer, part and name of ARM cores, as the makers publish them.
const ARM_PARTS: &[(u32, u32, &str)] = &[
    (0x41, 0xb76, "ARM1176"),
    (0x41, 0xc07, "Cortex-A7"),
    (0x41, 0xc08, "Cortex-A8"),
    (0x41, 0xc09, "Cortex-A9"),
    (0x41, 0xc0f, "Cortex-A15"),
    (0x41, 0xd03, "Cortex-A53"),
    (0x41, 0xd04, "Cortex-A35"),
    (0x41, 0xd05, "Cortex-A55"),
    (0x41, 0xd07, "Cortex-A57"),
    (0x41, 0xd08, "Cortex-A72"),
    (0x41, 0xd09, "Cortex-A73"),
    (0x41, 0xd0a, "Cortex-A75"),
    (0x41, 0xd0b, "Cortex-A76"),
    (0x41, 0xd0c, "Neoverse-N1"),
    (0x41, 0xd0d, "Cortex-A77"),
    (0x41, 0xd40, "Neoverse-V1"),
    (0x41, 0xd41, "Cortex-A78"),
    (0x41, 0xd44, "Cortex-X1"),
    (0x41, 0xd46, "Cortex-A510"),
    (0x41, 0xd47, "Cortex-A710"),
    (0x41, 0xd49, "Neoverse-N2"),
    (0x41, 0xd4a, "Neoverse-E1"),
    (0x41, 0xd4f, "Neoverse-V2"),
    (0x41, 0xd80, "Cortex-A520"),
    (0x41, 0xd81, "Cortex-A720"),
    (0x41, 0xd84, "Neoverse-V3"),
    (0x41, 0xd8e, "Neoverse-N3"),
    (0x43, 0x0af, "ThunderX2"),
    (0x48, 0xd01, "Kunpeng-920"),
    (0xc0, 0xac3, "Ampere-1"),
    (0xc0, 0xac4, "Ampere-1a"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(cpuinfo: &[u8]) -> Vec<(u32, String)> {
        let named = |model: Model| (model.id, model.name.unwrap_or_default());
        models(cpuinfo).into_iter().map(named).collect()
    }

    fn check(cpuinfo: &[u8], expected: &[(u32, &str)]) {
        let expected: Vec<_> =
            expected.iter().map(|(id, name)| (*id, (*name).to_owned())).collect();
        assert_eq!(names(cpuinfo), expected);
    }

    #[test]
    fn a_speed_is_a_number_within_bounds() {
        for (text, mhz) in [
            ("2596.094", Some(2596.094)),
            ("2425.000000MHz", Some(2425.0)),
            ("0", Some(0.0)),
            ("9999999.5", Some(9_999_999.5)),
            ("1e7", None),
            ("-0.5", None),
            ("inf", None),
            ("NaN", None),
            ("MHz", None),
        ] {
            assert_eq!(speed(text.as_bytes()), mhz, "{text}");
        }
    }

    #[test]
    fn x86_has_a_name_and_a_speed() {
        let recorded = include_bytes!("../../recorded/cpuinfo/x86-vm");
        check(recorded, &[(0, "AMD EPYC"), (1, "AMD EPYC")]);
        assert_eq!(models(recorded)[1].speed_mhz.map(f64::trunc), Some(2596.0));
    }

    #[test]
    fn arm64_has_part_numbers_instead_of_a_name() {
        let both = [(0, "Neoverse-N1"), (1, "Neoverse-N1")];
        check(include_bytes!("../../recorded/cpuinfo/arm64-neoverse"), &both);
        check(
            include_bytes!("../../recorded/cpuinfo/arm64-big-little"),
            &[(0, "Cortex-A53"), (4, "Cortex-A72"), (5, "ARM implementer 0x7f part 0x123")],
        );
    }

    #[test]
    fn other_architectures_have_other_keys() {
        check(
            include_bytes!("../../recorded/cpuinfo/arm32-pi"),
            &[(0, "ARMv7 Processor rev 4 (v7l)")],
        );
        let power = include_bytes!("../../recorded/cpuinfo/ppc64");
        assert_eq!(names(power)[1].1, "POWER9 (architected), altivec supported");
        assert_eq!(models(power)[0].speed_mhz, Some(2425.0));
        check(include_bytes!("../../recorded/cpuinfo/riscv64"), &[(0, "sifive,u74-mc")]);
    }

    #[test]
    fn garbage_has_no_cpus_and_no_names() {
        for garbage in [&b""[..], b"processor", b"processor: x\n", b"model name: a\n", b"\xff:\xff"]
        {
            check(garbage, &[]);
        }
        let odd = models(b"processor: 1\nmodel name:\ncpu MHz: NaN\nCPU part: 0xzz\n");
        assert_eq!(odd, [Model { id: 1, ..Model::default() }]);
        check(b"processor: 0\nmodel name: \xffx\n", &[(0, "\u{fffd}x")]);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..4000) {
            models(&bytes);
            models(&[b"processor\t: 7\n", &bytes[..]].concat());
            let recorded = include_bytes!("../../recorded/cpuinfo/x86-vm");
            prop_assert!(models(&recorded[..cut.min(recorded.len())]).len() <= 2);
        }
    }
}
