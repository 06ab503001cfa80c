//! Memory that is really there: what makes a `fork` slow.

/// So many bytes, each page touched.
#[derive(Debug, Default)]
pub struct Ballast(Vec<u8>);

impl Ballast {
    const PAGE: usize = 4096;

    /// Holds `mib` MiB from now on.
    pub fn hold(&mut self, mib: usize) {
        self.0 = Vec::new();
        self.0 = vec![0; mib << 20];
        for page in self.0.chunks_mut(Self::PAGE) {
            page[0] = 1;
        }
        std::hint::black_box(&self.0);
    }
}
