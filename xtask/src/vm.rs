//! The sandbox's tests on a kernel and a cgroup version that this machine may not have: in a throw-away
//! virtual machine with Debian's cloud kernel, under qemu's software emulation, everything in its initramfs.
//! And the machine whose power a test cuts: [`power_cut_machine`] makes what it boots, the test does the rest.
//!
//! Emulated code runs 10 to 30 times slower: nothing is timed there. A machine with control groups of
//! version 1 cannot show version 2 otherwise, since a controller belongs to one of them at a time.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use walkdir::WalkDir;

use crate::run::{cargo, output, root, run};

/// Longest that a run may take, in seconds.
const RUN_S_MAX: u32 = 1500;

/// Memory of the machine, in MiB.
const MEMORY_MIB: u32 = 3072;

/// Modules of the kernel that sandboxes need and that are not built in.
const MODULES: &[&str] = &["overlay"];

/// Further modules of the machine whose power is cut: its bus, its disk, its network, and that of its functions. There
/// is no modprobe(8) in it, by which a kernel loads those itself when rules for packets name them.
const SERVER_MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "veth",
    "nft_chain_nat",
    "nft_connlimit",
    "nft_ct",
    "nft_fib_ipv4",
    "nft_masq",
    "nft_reject_ipv4",
];

/// Serves from a state directory on the disk, to the host, which qemu's network has at 10.0.2.2: functions may reach
/// it there. The test knows the password.
const SERVE: &str = "ip addr add 10.0.2.15/24 dev eth0 && ip link set eth0 up &&
ip route add default via 10.0.2.2 && mkdir -p /state && mount -t ext4 /dev/vda /state || exit 3
mkdir -p /state/pinnace && touch /state/pinnace/lock
echo password > /state/pinnace/basic-auth-password
pinnace up --listen 0.0.0.0:8080 --state-dir /state/pinnace --allow-net 10.0.2.2/32
";

/// What tests run that busybox has not, or not like this: functions in Python, ordinary users and their ids.
const PROGRAMS: [&str; 5] = [
    "/usr/bin/python3",
    "/usr/bin/setpriv",
    "/usr/bin/unshare",
    "/usr/bin/newuidmap",
    "/usr/bin/newgidmap",
];

/// Moves onto a tmpfs first: pivot_root(2) refuses to leave an initramfs.
const INIT: &str = "#!/bin/sh
export PATH=/bin:/sbin
mkdir /new
mount -t tmpfs -o size=90% root /new
for file in /*; do [ $file = /new ] || cp -a $file /new/; done
exec switch_root /new /start
";

const START: &str = "#!/bin/sh
export PATH=/usr/bin:/bin:/sbin HOME=/root RUST_BACKTRACE=0
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run
chmod 1777 /tmp /var/tmp
mount -t cgroup2 cgroup /sys/fs/cgroup
ip link set lo up
for module in /modules/*; do insmod $module; done
echo VM-BEGIN
sh /command
echo \"VM-EXIT $?\"
reboot -f
";

/// Runs the sandbox's tests in the machine; of their names, those that contain one of `filters`.
///
/// # Errors
/// The machine cannot be made, or a test failed; it was shown.
pub fn test(filters: &[String]) -> Result<()> {
    let tests = test_binary()?;
    let programs = tests.parent().and_then(Path::parent).context("cargo has a folder for tests")?;
    let folder = root().join("target/vm");
    let (kernel, modules) = kernel(&folder)?;
    let mut image = Image::new(folder.join("root"))?;
    for program in ["pinnace-init", "pinnace-spawner"] {
        // The tests know them by the paths that they have here.
        image.add(&programs.join(program), &programs.join(program))?;
    }
    image.add(&tests, Path::new("/sandboxes"))?;
    image.add_programs()?;
    image.modules(&kernel, &modules, MODULES)?;
    image.command(&format!("/sandboxes --test-threads 2 {}", filters.join(" ")))?;
    let archive = image.pack()?;
    let boot = modules.join("boot").join(format!("vmlinuz-{kernel}"));
    let said = boot_with(&boot, &archive)?;
    let (shown, code) = told(&said);
    print!("{shown}");
    match code {
        Some(0) => Ok(()),
        Some(code) => bail!("tests failed in the virtual machine (exit code {code})"),
        None => bail!("the virtual machine did not end within {RUN_S_MAX} s; it said:\n{said}"),
    }
}

/// What the machine boots that runs a server and loses its power, in the variables by which its test knows it: a kernel,
/// and an archive with this binary.
///
/// # Errors
/// One of them cannot be made.
pub fn power_cut_machine(pinnace: &Path) -> Result<[(&'static str, PathBuf); 2]> {
    let folder = root().join("target/vm");
    let (kernel, modules) = kernel(&folder)?;
    let mut image = Image::new(folder.join("power-cut"))?;
    image.add(pinnace, Path::new("/bin/pinnace"))?;
    image.modules(&kernel, &modules, &[MODULES, SERVER_MODULES].concat())?;
    image.command(SERVE)?;
    let kernel = modules.join("boot").join(format!("vmlinuz-{kernel}"));
    Ok([("PINNACE_VM_KERNEL", kernel), ("PINNACE_VM_ARCHIVE", image.pack()?)])
}

/// Builds the tests and answers where they are.
fn test_binary() -> Result<PathBuf> {
    let arguments = [
        "test",
        "--package",
        "pinnace-sandbox",
        "--test",
        "sandboxes",
        "--no-run",
        "--message-format",
        "json",
    ];
    let said = output(&mut cargo(&arguments))?;
    let messages = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut binaries = messages.filter(|message| message["target"]["name"] == "sandboxes");
    let path = binaries.find_map(|message| message["executable"].as_str().map(PathBuf::from));
    path.context("cargo says where it has put the tests")
}

/// The version of the kernel, and the folder with it and its modules, downloaded if need be.
fn kernel(folder: &Path) -> Result<(String, PathBuf)> {
    let unpacked = folder.join("kernel");
    if !unpacked.join("boot").is_dir() {
        fs::create_dir_all(folder)?;
        let known = output(Command::new("apt-cache").args(["depends", "linux-image-cloud-amd64"]))?;
        let package =
            known.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image"));
        let package = format!("linux-image{}", package.context("Debian has a cloud kernel")?);
        run(Command::new("apt-get").args(["download", "--quiet", &package]).current_dir(folder))?;
        let is_it = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(&format!("{package}_")) && name.ends_with(".deb")
        };
        let files = fs::read_dir(folder)?.flatten().map(|entry| entry.path());
        let file = files.into_iter().find(is_it).context("apt-get has downloaded the kernel")?;
        let half = folder.join("kernel.half");
        run(Command::new("dpkg").arg("-x").arg(file).arg(&half))?;
        run(Command::new("depmod").arg("-b").arg(&half).arg(version(&half)?))?;
        fs::rename(half, &unpacked)?;
    }
    Ok((version(&unpacked)?, unpacked))
}

fn version(unpacked: &Path) -> Result<String> {
    let mut versions = fs::read_dir(unpacked.join("lib/modules"))?.flatten();
    let version = versions.next().context("the kernel has modules")?;
    Ok(version.file_name().to_string_lossy().into_owned())
}

/// What the machine has as its root.
struct Image {
    folder: PathBuf,
}

impl Image {
    fn new(folder: PathBuf) -> Result<Self> {
        let image = Self { folder };
        if image.folder.exists() {
            fs::remove_dir_all(&image.folder)?;
        }
        for name in [
            "bin",
            "sbin",
            "proc",
            "sys",
            "dev",
            "tmp",
            "run",
            "etc",
            "modules",
            "root",
            "usr/bin",
            "usr/sbin",
            "usr/lib",
            "usr/lib64",
            "var/tmp",
        ] {
            fs::create_dir_all(image.folder.join(name))?;
        }
        for name in ["lib", "lib64"] {
            symlink(Path::new("usr").join(name), image.folder.join(name))?;
        }
        let busybox = Path::new("/bin/busybox");
        image.add(busybox, busybox)?;
        for applet in output(Command::new(busybox).arg("--list"))?.lines() {
            if applet != "busybox" {
                symlink("busybox", image.folder.join("bin").join(applet))?;
            }
        }
        let passwd = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n";
        image.write("etc/passwd", passwd, 0o644)?;
        image.write("etc/group", "root:x:0:\nnogroup:x:65534:\n", 0o644)?;
        for file in ["etc/subuid", "etc/subgid"] {
            image.write(file, "", 0o644)?;
        }
        image.write("init", INIT, 0o755)?;
        image.write("start", START, 0o755)?;
        Ok(image)
    }

    fn add(&self, from: &Path, to: &Path) -> Result<()> {
        let to = self.folder.join(to.strip_prefix("/").unwrap_or(to));
        fs::create_dir_all(to.parent().context("a file lies in a folder")?)?;
        fs::copy(from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        Ok(())
    }

    /// Adds the programs that busybox does not stand in for, with what they load.
    fn add_programs(&self) -> Result<()> {
        let python = Path::new("/usr/bin/python3");
        let ask = "import os, json; print(os.path.dirname(json.__path__[0]))";
        let library = output(Command::new(python).args(["-c", ask]))?;
        let library = Path::new(library.trim());
        let mut programs: Vec<PathBuf> = PROGRAMS.iter().map(PathBuf::from).collect();
        for entry in WalkDir::new(library).into_iter().filter_entry(|e| e.file_name() != "test") {
            let path = entry?.into_path();
            if path.is_file() {
                self.add(&path, &path)?;
                programs.extend(path.extension().is_some_and(|e| e == "so").then_some(path));
            }
        }
        for program in PROGRAMS.map(Path::new) {
            self.add(program, program)?;
        }
        for line in output(Command::new("ldd").args(programs))?.lines() {
            let path =
                line.split_whitespace().find(|word| word.starts_with('/') && !word.ends_with(':'));
            if let Some(path) = path.map(Path::new) {
                // Where it is behind the links of a merged /usr, which is all that functions see.
                let real =
                    Path::new("/usr").join(path.strip_prefix("/usr").or(path.strip_prefix("/"))?);
                self.add(path, &real)?;
            }
        }
        Ok(())
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> Result<()> {
        let path = self.folder.join(name);
        fs::write(&path, text)?;
        Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
    }

    fn command(&self, command: &str) -> Result<()> {
        self.write("command", command, 0o644)
    }

    /// Adds the modules with all that they need, so that they are loaded in an order that works.
    fn modules(&mut self, version: &str, kernel: &Path, modules: &[&str]) -> Result<()> {
        let mut added: Vec<String> = Vec::new();
        for module in modules {
            let mut modprobe = Command::new("modprobe");
            modprobe.arg("-d").arg(kernel).args(["-S", version, "--show-depends", module]);
            for line in output(&mut modprobe)?.lines() {
                let Some(path) = line.strip_prefix("insmod ") else { continue };
                let path = path.trim().to_owned();
                if !added.contains(&path) {
                    let name = format!("{:03}.ko", added.len());
                    self.add(Path::new(&path), &Path::new("/modules").join(name))?;
                    added.push(path);
                }
            }
        }
        Ok(())
    }

    /// Packs everything as the kernel unpacks it at boot.
    fn pack(self) -> Result<PathBuf> {
        let archive = self.folder.with_extension("cpio");
        let script = "find . | cpio --create --format=newc --quiet";
        let file = fs::File::create(&archive)?;
        let mut pack = Command::new("sh");
        let packed = pack.args(["-c", script]).current_dir(&self.folder).stdout(file).status()?;
        if !packed.success() {
            bail!("the machine's root cannot be packed ({packed})");
        }
        fs::remove_dir_all(&self.folder)?;
        Ok(archive)
    }
}

/// Boots and answers all that was said on the console.
fn boot_with(kernel: &Path, archive: &Path) -> Result<String> {
    let console = archive.with_extension("log");
    let mut qemu = Command::new("timeout");
    qemu.arg(RUN_S_MAX.to_string())
        .args(["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"])
        .args(["-m", &MEMORY_MIB.to_string(), "-display", "none", "-monitor", "none"])
        .args(["-no-reboot", "-nodefaults", "-serial"])
        .arg(format!("file:{}", console.display()))
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(archive)
        .args(["-append", "console=ttyS0 quiet panic=-1 cgroup_no_v1=all"])
        .stdin(Stdio::null());
    eprintln!("\n$ qemu-system-x86_64 -kernel {} …", kernel.display());
    // Its code says nothing of what ran inside.
    qemu.status().context("qemu cannot be started")?;
    let said = fs::read(&console).context("the machine has said nothing")?;
    fs::remove_file(console)?;
    fs::remove_file(archive)?;
    Ok(String::from_utf8_lossy(&said).replace('\r', ""))
}

/// What a command said, without the kernel's own words, and its exit code.
fn told(console: &str) -> (String, Option<i32>) {
    let lines = console.lines().skip_while(|line| *line != "VM-BEGIN").skip(1);
    let mut text = String::new();
    for line in lines {
        // A line without an end may stand before it.
        if let Some((before, code)) = line.split_once("VM-EXIT ") {
            text += before;
            return (text, code.trim().parse().ok());
        }
        if !line.starts_with('[') {
            text += line;
            text.push('\n');
        }
    }
    (text, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_is_understood() {
        let console =
            "boot\nVM-BEGIN\nrunning 1 test\n[ 22.6] out of memory\nok\nVM-EXIT 101\nreboot\n";
        assert_eq!(told(console), ("running 1 test\nok\n".to_owned(), Some(101)));
        assert_eq!(told("VM-BEGIN\nhalf"), ("half\n".to_owned(), None));
    }
}
