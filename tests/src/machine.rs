//! A virtual machine that runs a server on a disk of its own, and whose power can be cut.
//!
//! `cargo xtask test` makes what it boots and names it in `PINNACE_VM_KERNEL` and `PINNACE_VM_ARCHIVE`. All but the
//! state directory is in the machine's memory. Emulated code is 10 to 30 times slower: nothing is timed here.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{
    eventually,
    gateway::free_address,
    http,
    volatile_disk::{Cut, Served, VolatileDisk},
};

/// How long a machine may take until its server answers.
const BOOT_MAX: Duration = Duration::from_secs(180);

/// How long one look at it may take: before its network is up, nobody refuses a connection.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// Bytes of its disk.
const DISK_BYTES: u64 = 512 << 20;

/// Memory of the machine, in MiB.
const MEMORY_MIB: u32 = 2048;

/// The machine. When it is dropped its power is cut.
pub struct Machine {
    folder: tempfile::TempDir,
    disk: VolatileDisk,
    address: SocketAddr,
    running: Option<(Child, Served)>,
}

impl Machine {
    /// A machine with an empty disk; [`Self::boot`] starts it.
    ///
    /// # Panics
    /// The disk cannot be made.
    #[must_use]
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("pinnace-machine-").tempdir();
        let folder = folder.expect("the temporary directory is writable");
        let image = folder.path().join("disk");
        let file = std::fs::File::create(&image).expect("the temporary directory is writable");
        file.set_len(DISK_BYTES).expect("a file can have holes");
        let mut mkfs = Command::new("mkfs.ext4");
        // Debian has it where ordinary users do not look.
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
        let made = mkfs.env("PATH", path).arg("-q").arg(&image).status();
        assert!(made.expect("mkfs.ext4 is installed").success(), "the disk has no file system");
        let disk = VolatileDisk::open(&image, folder.path()).expect("the image was just made");
        Self { folder, disk, address: free_address(), running: None }
    }

    /// Boots it and waits until its server answers.
    ///
    /// # Panics
    /// It does not; the message shows its console.
    pub fn boot(&mut self) {
        let given = |name: &str| {
            let value = std::env::var_os(name).map(PathBuf::from);
            value.unwrap_or_else(|| panic!("{name} is not set; run: cargo xtask test"))
        };
        let served = self.disk.serve().expect("a socket can be made");
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-no-reboot"])
            .args(["-m", &MEMORY_MIB.to_string(), "-display", "none", "-monitor", "none"])
            .args(["-nodefaults", "-append", "console=ttyS0 quiet panic=-1 cgroup_no_v1=all"])
            .arg("-kernel")
            .arg(given("PINNACE_VM_KERNEL"))
            .arg("-initrd")
            .arg(given("PINNACE_VM_ARCHIVE"))
            .arg("-serial")
            .arg(format!("file:{}", self.console_path().display()))
            // A cache that the machine's kernel knows of, and has to flush.
            .arg("-blockdev")
            .arg(format!(
                "driver=nbd,node-name=disk,server.type=unix,server.path={}",
                served.socket.display()
            ))
            .args(["-device", "virtio-blk-pci,drive=disk,write-cache=on"])
            .arg("-netdev")
            .arg(format!("user,id=net,hostfwd=tcp:{}-10.0.2.15:8080", self.address))
            .args(["-device", "virtio-net-pci,netdev=net,romfile="]);
        let child = qemu.stdin(Stdio::null()).spawn().expect("qemu is installed");
        self.running = Some((child, served));
        eventually("the machine's server answers", BOOT_MAX, || {
            let (child, _) = self.running.as_mut()?;
            let ended = child.try_wait().expect("it is our child");
            assert!(ended.is_none(), "the machine ended ({ended:?}):\n{}", self.console());
            let url = self.url() + "/healthz";
            let answer = http::send_within(LOOK_MAX, "GET", &url, &[], b"");
            answer.is_ok_and(|answer| answer.status == 200).then_some(())
        });
    }

    /// Cuts its power. `coin` says of each sector in the disk's cache whether it is lost.
    ///
    /// # Panics
    /// It is not running.
    pub fn cut(&mut self, coin: impl FnMut() -> bool) -> Cut {
        let (mut child, served) = self.running.take().expect("the machine runs");
        let cut = self.disk.cut(coin).expect("the image is writable");
        child.kill().expect("it is our child");
        child.wait().expect("it is our child");
        served.join();
        cut
    }

    /// Its server's URL, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it has said since it was booted.
    #[must_use]
    pub fn console(&self) -> String {
        let said = std::fs::read(self.console_path()).unwrap_or_default();
        String::from_utf8_lossy(&said).into_owned()
    }

    fn console_path(&self) -> PathBuf {
        self.folder.path().join("console")
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some((child, _)) = &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("the machine's console:\n{}", self.console());
        }
    }
}
