//! Resident memory of the parent, which makes a `fork` slow.

use crate::context::Context;

/// Memory of which every page has been touched.
#[derive(Debug, Default)]
pub struct Ballast(Vec<u8>);

impl Ballast {
    const PAGE: usize = 4096;

    /// Replaces the memory by `mib` MiB.
    pub fn hold(&mut self, mib: usize) {
        self.0 = Vec::new();
        self.0 = vec![0; mib << 20];
        for page in self.0.chunks_mut(Self::PAGE) {
            page[0] = 1;
        }
        std::hint::black_box(&self.0);
    }
}

/// Returns the sizes in MiB: up to 2 GiB, held twice (here and in Node), and at most half of the
/// available memory.
pub fn sizes(context: &Context) -> Vec<usize> {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let free = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let free = free.and_then(|text| text.split_whitespace().next()?.parse::<usize>().ok());
    let sizes = context.pick(vec![0, 600], vec![0, 256, 600, 1024, 2048]);
    sizes.into_iter().filter(|mib| mib * 4 <= free.unwrap_or(0) / 1024).collect()
}
