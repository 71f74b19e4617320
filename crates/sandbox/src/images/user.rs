//! Who an image's process runs as: names resolved against the image's own files.

use std::path::{Path, PathBuf};

use pinnace_core::{
    image::User,
    limits::{IMAGE_USER_FILE_BYTES_MAX, IMAGE_USER_GROUPS_MAX, SANDBOX_IDS},
};

use super::{error::LoadError, layered::Layered, store::Ownership};

/// Lines of `/etc/passwd` and `/etc/group` of an image, as far as they are well-formed.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    users: Vec<Account>,
    groups: Vec<Group>,
}

#[derive(Debug)]
struct Account {
    name: String,
    uid: u32,
    gid: u32,
}

#[derive(Debug)]
struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

impl Accounts {
    /// Reads the files of an image whose layers are given lowest first.
    pub(super) fn read(layers: &[PathBuf], ownership: Ownership) -> Result<Self, LoadError> {
        let layered = Layered::open(layers, ownership).map_err(|(path, error)| {
            LoadError::unusable(path.display().to_string(), error.to_string())
        })?;
        let text = |path: &str| {
            let content =
                layered.read(Path::new(path), IMAGE_USER_FILE_BYTES_MAX).map_err(|error| {
                    LoadError::unusable(format!("the image's {path}"), error.to_string())
                })?;
            Ok::<_, LoadError>(String::from_utf8_lossy(&content.unwrap_or_default()).into_owned())
        };
        Ok(Self::parse(&text("/etc/passwd")?, &text("/etc/group")?))
    }

    fn parse(passwd: &str, group: &str) -> Self {
        let user = |line: &str| {
            let mut fields = line.split(':');
            let name = fields.next().filter(|name| !name.is_empty())?.to_owned();
            let uid = fields.nth(1)?.parse().ok()?;
            Some(Account { name, uid, gid: fields.next()?.parse().ok()? })
        };
        let group_of = |line: &str| {
            let mut fields = line.split(':');
            let name = fields.next().filter(|name| !name.is_empty())?.to_owned();
            let gid = fields.nth(1)?.parse().ok()?;
            let members = fields.next().unwrap_or_default().split(',').map(|m| m.trim().to_owned());
            Some(Group { name, gid, members: members.collect() })
        };
        Self {
            users: passwd.lines().filter_map(user).collect(),
            groups: group.lines().filter_map(group_of).collect(),
        }
    }

    /// Resolves `USER[:GROUP]`, each a name or a number, as OCI image-spec `config.md` has it: without a
    /// group, that of /etc/passwd and the further groups of /etc/group apply; a bare number that
    /// /etc/passwd does not know has group 0. Nothing means root.
    pub(super) fn resolve(&self, text: &str) -> Result<User, LoadError> {
        let (user, group) = text.split_once(':').map_or((text, None), |(u, g)| (u, Some(g)));
        let group = group.filter(|group| !group.is_empty());
        let number = if user.is_empty() { Some(0) } else { user.parse::<u32>().ok() };
        // A name goes before a number that reads like it, as in `docker run`.
        let account = self
            .users
            .iter()
            .find(|account| account.name == user)
            .or_else(|| self.users.iter().find(|account| Some(account.uid) == number));
        let uid = match (account, number) {
            (Some(account), _) => account.uid,
            (None, Some(number)) => number,
            (None, None) => return Err(unknown("user", user, "/etc/passwd")),
        };
        let resolved = match group {
            Some(group) => User { uid, gid: self.group(group)?, groups: Vec::new() },
            None => User {
                uid,
                gid: account.map_or(0, |account| account.gid),
                groups: account.map_or_else(Vec::new, |account| self.groups_of(account)),
            },
        };
        check(text, &resolved)?;
        Ok(resolved)
    }

    fn group(&self, text: &str) -> Result<u32, LoadError> {
        let named = self.groups.iter().find(|group| group.name == text).map(|group| group.gid);
        named.or_else(|| text.parse().ok()).ok_or_else(|| unknown("group", text, "/etc/group"))
    }

    fn groups_of(&self, account: &Account) -> Vec<u32> {
        let member = |group: &&Group| group.members.contains(&account.name);
        let mut gids: Vec<u32> = self.groups.iter().filter(member).map(|group| group.gid).collect();
        gids.sort_unstable();
        gids.dedup();
        gids.retain(|&gid| gid != account.gid);
        gids
    }
}

fn unknown(kind: &str, name: &str, file: &str) -> LoadError {
    LoadError::unusable(
        "the image's configuration",
        format!("it runs as {kind} `{}`, which its {file} does not know", name.escape_debug()),
    )
}

fn check(text: &str, user: &User) -> Result<(), LoadError> {
    let ids = [user.uid, user.gid].into_iter().chain(user.groups.iter().copied());
    let reason = if let Some(id) = ids.into_iter().find(|&id| id >= SANDBOX_IDS) {
        format!("it has the id {id}, and a sandbox has the ids 0 to {} only", SANDBOX_IDS - 1)
    } else if user.groups.len() > IMAGE_USER_GROUPS_MAX {
        format!("it is in more than {IMAGE_USER_GROUPS_MAX} groups (IMAGE_USER_GROUPS_MAX)")
    } else {
        return Ok(());
    };
    Err(LoadError::unusable(format!("the image's user `{}`", text.escape_debug()), reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# comment\nbad\napp:x:1000:1001:::\n\
                          1234:x:77:78:::\nbig:x:70000:1:::\n";
    const GROUP: &str =
        "root:x:0:\nwheel:x:10:root,app\nvideo:x:44:app\napp:x:1001:app\nbad:x:z:\n";

    fn user(uid: u32, gid: u32, groups: &[u32]) -> User {
        User { uid, gid, groups: groups.to_vec() }
    }

    #[test]
    fn users_resolve_as_the_specification_says() {
        let accounts = Accounts::parse(PASSWD, GROUP);
        for (text, expected) in [
            ("", user(0, 0, &[10])),
            ("root", user(0, 0, &[10])),
            ("app", user(1000, 1001, &[10, 44])),
            ("1000", user(1000, 1001, &[10, 44])),
            ("app:video", user(1000, 44, &[])),
            ("app:7", user(1000, 7, &[])),
            ("app:", user(1000, 1001, &[10, 44])),
            ("5:wheel", user(5, 10, &[])),
            ("5", user(5, 0, &[])),
            ("5:6", user(5, 6, &[])),
            ("1234", user(77, 78, &[])),
        ] {
            assert_eq!(accounts.resolve(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn unknown_names_are_named() {
        let accounts = Accounts::parse(PASSWD, GROUP);
        for (text, says) in [
            ("nobody", "`nobody`"),
            ("app:nogroup", "`nogroup`"),
            ("-1", "`-1`"),
            ("big", "70000"),
            ("5:65536", "65536"),
            ("4294967296", "`4294967296`"),
        ] {
            let error = accounts.resolve(text).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn an_image_without_accounts_has_numbers_only() {
        let none = Accounts::parse("", "");
        assert_eq!(none.resolve("").unwrap(), user(0, 0, &[]));
        assert_eq!(none.resolve("12:13").unwrap(), user(12, 13, &[]));
        assert!(none.resolve("root").is_err());
    }
}
