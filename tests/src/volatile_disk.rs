//! A disk whose write cache loses what was not flushed when the power is cut.
//!
//! It is served to qemu over the NBD protocol (its specification's fixed newstyle handshake). What is written waits
//! in memory until a flush puts it into the image. At the cut a coin is thrown for each sector that waits: it is in
//! the image, or it never was. So writes are lost, reordered and torn at sectors, as a real cache may do; an older
//! content of a sector that was written twice since the last flush does not come back.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Write},
    os::unix::{
        fs::FileExt,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

/// Bytes that a disk writes wholly or not at all.
const SECTOR_BYTES: u64 = 512;

/// How long a flush takes, as with a real disk: what was written waits meanwhile.
const FLUSH: Duration = Duration::from_millis(10);

type Sector = [u8; SECTOR_BYTES as usize];

/// The disk. It can be served to one machine after another.
pub struct VolatileDisk {
    content: Arc<Mutex<Content>>,
    folder: PathBuf,
}

/// A machine's connection to it.
pub struct Served {
    thread: JoinHandle<io::Result<()>>,
    /// Where qemu connects.
    pub socket: PathBuf,
}

/// What a cut came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// Sectors that waited in the cache.
    pub waited: usize,
    /// Of these, lost ones.
    pub lost: usize,
}

struct Content {
    image: File,
    bytes: u64,
    unflushed: BTreeMap<u64, Sector>,
    has_power: bool,
}

impl VolatileDisk {
    /// A disk of an image, with its socket in a folder.
    ///
    /// # Errors
    /// The image cannot be opened.
    pub fn open(image: &Path, folder: &Path) -> io::Result<Self> {
        let image = File::options().read(true).write(true).open(image)?;
        let bytes = image.metadata()?.len();
        let content = Content::of(image, bytes);
        Ok(Self { content: Arc::new(Mutex::new(content)), folder: folder.to_owned() })
    }

    /// Serves it to the one machine that connects next.
    ///
    /// # Errors
    /// No socket can be made.
    pub fn serve(&self) -> io::Result<Served> {
        let socket = self.folder.join("disk.sock");
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket)?;
        let content = self.content.clone();
        locked(&content).has_power = true;
        let thread = std::thread::spawn(move || serve(&listener.accept()?.0, &content));
        Ok(Served { thread, socket })
    }

    /// Cuts the power. `coin` says of each sector in the cache whether it is lost. From then on the machine gets no
    /// answer, and is to be killed: that takes longer than a flush.
    ///
    /// # Errors
    /// The image cannot be written.
    pub fn cut(&self, coin: impl FnMut() -> bool) -> io::Result<Cut> {
        locked(&self.content).cut(coin)
    }
}

impl Served {
    /// Waits until the machine is gone.
    ///
    /// # Panics
    /// The thread that served it did.
    pub fn join(self) {
        // That a request was broken off says nothing.
        let _ = self.thread.join().expect("the disk's thread does not panic");
    }
}

fn locked(content: &Mutex<Content>) -> MutexGuard<'_, Content> {
    content.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Content {
    fn of(image: File, bytes: u64) -> Self {
        Self { image, bytes, unflushed: BTreeMap::new(), has_power: true }
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.image.read_exact_at(buffer, offset)?;
        for (piece, number) in buffer.chunks_mut(SECTOR_BYTES as usize).zip(offset / SECTOR_BYTES..)
        {
            if let Some(sector) = self.unflushed.get(&number) {
                piece.copy_from_slice(sector);
            }
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (piece, number) in bytes.chunks(SECTOR_BYTES as usize).zip(offset / SECTOR_BYTES..) {
            self.unflushed.insert(number, piece.try_into().expect("requests are whole sectors"));
        }
    }

    fn cut(&mut self, mut coin: impl FnMut() -> bool) -> io::Result<Cut> {
        self.has_power = false;
        let waited = self.unflushed.len();
        self.unflushed.retain(|_, _| !coin());
        let lost = waited - self.unflushed.len();
        self.flush()?;
        Ok(Cut { waited, lost })
    }

    fn flush(&mut self) -> io::Result<()> {
        for (number, sector) in std::mem::take(&mut self.unflushed) {
            self.image.write_all_at(&sector, number * SECTOR_BYTES)?;
        }
        Ok(())
    }
}

const OPTION: u64 = u64::from_be_bytes(*b"IHAVEOPT");
const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const REQUEST: u32 = 0x2560_9513;
const REPLY: u32 = 0x6744_6698;

const OPT_GO: u32 = 7;
const REP_ACK: u32 = 1;
const REP_INFO: u32 = 3;
const REP_ERR_UNSUP: u32 = 0x8000_0001;
/// Fixed newstyle, and no zeroes after the handshake.
const HANDSHAKE_FLAGS: u16 = 0b11;
/// There are flags; flushes are understood. Not FUA: then the machine's kernel flushes after such a write.
const TRANSMISSION_FLAGS: u16 = 0b101;

const CMD_READ: u16 = 0;
const CMD_WRITE: u16 = 1;
const CMD_DISC: u16 = 2;
const CMD_FLUSH: u16 = 3;
const EINVAL: u32 = 22;
const EIO: u32 = 5;

/// Longest request; qemu's are shorter.
const REQUEST_BYTES_MAX: u32 = 64 << 20;

fn number<const N: usize>(stream: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn serve(mut stream: &UnixStream, content: &Mutex<Content>) -> io::Result<()> {
    let bytes = locked(content).bytes;
    greet(&mut stream, bytes)?;
    loop {
        if u32::from_be_bytes(number(&mut stream)?) != REQUEST {
            return Err(io::Error::other("this is no request of NBD"));
        }
        let _flags: [u8; 2] = number(&mut stream)?;
        let command = u16::from_be_bytes(number(&mut stream)?);
        let cookie: [u8; 8] = number(&mut stream)?;
        let offset = u64::from_be_bytes(number(&mut stream)?);
        let length = u32::from_be_bytes(number(&mut stream)?);
        if length > REQUEST_BYTES_MAX {
            return Err(io::Error::other("a request of NBD is too long"));
        }
        let mut data = Vec::new();
        match command {
            CMD_READ => data.resize(length as usize, 0),
            CMD_WRITE => {
                data.resize(length as usize, 0);
                stream.read_exact(&mut data)?;
            }
            CMD_FLUSH => std::thread::park_timeout(FLUSH),
            _ => {}
        }
        let mut content = locked(content);
        if !content.has_power {
            drop(content);
            // No answer, whatever comes, until the machine is gone.
            return io::copy(&mut stream, &mut io::sink()).map(drop);
        }
        let done = match command {
            CMD_READ => content.read(offset, &mut data).map_err(|_| EIO),
            CMD_WRITE => {
                content.write(offset, &data);
                data.clear();
                Ok(())
            }
            CMD_FLUSH => content.flush().map_err(|_| EIO),
            CMD_DISC => return Ok(()),
            _ => Err(EINVAL),
        };
        drop(content);
        let mut reply = REPLY.to_be_bytes().to_vec();
        reply.extend(done.err().unwrap_or(0).to_be_bytes());
        reply.extend(cookie);
        if done.is_ok() {
            reply.append(&mut data);
        }
        stream.write_all(&reply)?;
    }
}

/// Agrees on the disk's size and on what it can.
fn greet(stream: &mut (impl Read + Write), bytes: u64) -> io::Result<()> {
    stream.write_all(b"NBDMAGICIHAVEOPT")?;
    stream.write_all(&HANDSHAKE_FLAGS.to_be_bytes())?;
    let _flags: [u8; 4] = number(stream)?;
    loop {
        if u64::from_be_bytes(number(stream)?) != OPTION {
            return Err(io::Error::other("this is no option of NBD"));
        }
        let option = u32::from_be_bytes(number(stream)?);
        let length = u32::from_be_bytes(number(stream)?);
        io::copy(&mut stream.take(length.into()), &mut io::sink())?;
        let mut reply = |kind: u32, data: &[u8]| {
            let mut reply = OPTION_REPLY.to_be_bytes().to_vec();
            reply.extend(option.to_be_bytes());
            reply.extend(kind.to_be_bytes());
            reply.extend((data.len() as u32).to_be_bytes());
            reply.extend(data);
            stream.write_all(&reply)
        };
        if option == OPT_GO {
            let mut info = 0_u16.to_be_bytes().to_vec();
            info.extend(bytes.to_be_bytes());
            info.extend(TRANSMISSION_FLAGS.to_be_bytes());
            reply(REP_INFO, &info)?;
            return reply(REP_ACK, &[]);
        }
        reply(REP_ERR_UNSUP, &[])?;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says what failed by failing there")]
mod tests {
    use super::*;

    #[test]
    fn what_was_flushed_stays_and_the_rest_is_lost_by_the_coin() {
        let image = tempfile::tempfile().unwrap();
        image.set_len(4 * SECTOR_BYTES).unwrap();
        let mut content = Content::of(image, 4 * SECTOR_BYTES);
        content.write(0, &[1; 1024]);
        content.flush().unwrap();
        content.write(512, &[2; 1024]);
        let mut read = [0; 2048];
        content.read(0, &mut read).unwrap();
        assert_eq!((read[0], read[512], read[1024], read[1536]), (1, 2, 2, 0));
        let mut coins = [true, false].into_iter();
        let cut = content.cut(|| coins.next().unwrap()).unwrap();
        assert_eq!(cut, Cut { waited: 2, lost: 1 });
        content.read(0, &mut read).unwrap();
        assert_eq!((read[0], read[512], read[1024], read[1536]), (1, 1, 2, 0));
    }
}
