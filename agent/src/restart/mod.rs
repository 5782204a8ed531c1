//! The texts that tell what a restart would change: names of kernels, mappings of processes, lists of packages that ask
//! for a reboot. Whoever reads them brings the text: `collect/reboot/` on a host, and the fuzz targets, which take
//! these files in by their paths.

pub mod maps;
pub mod release;

/// Packages that ask for a reboot at most: the file is appended to until somebody reboots.
pub const MOST_PACKAGES: usize = 100;
const NAME_BYTES: usize = 256;

/// The packages of `/run/reboot-required.pkgs`, each once, in their order.
pub fn packages(text: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for line in text.lines() {
        let name = line.trim();
        let is_name = !name.is_empty()
            && name.len() <= NAME_BYTES
            && name.bytes().all(|byte| byte.is_ascii_graphic());
        if is_name && !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
            if names.len() == MOST_PACKAGES {
                break;
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_named_once_however_often_it_asked() {
        let text = "linux-image-6.1.0-28-amd64\nlinux-base\n\nlinux-base\r\n a b\nlibc6";
        let expected = ["linux-image-6.1.0-28-amd64", "linux-base", "libc6"];
        assert_eq!(packages(text), expected);
        let many: Vec<_> = (0..1000).map(|n| format!("p{n}")).collect();
        assert_eq!(packages(&many.join("\n")).len(), MOST_PACKAGES);
    }
}
