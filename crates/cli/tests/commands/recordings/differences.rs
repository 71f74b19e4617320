//! Where `pinnace` deliberately differs from the recorded faas-cli, and why.
//!
//! For all recordings alike: `User-Agent` is ours; without a login no `Authorization` is sent, where the
//! recorded client sends `Bearer` without a token; after a deploy the function is looked at once, because a
//! server of ours says whether it can serve, and then the exit code says so too.
//!
//! Beyond what is recorded:
//! - A wrong command line ends with 2, and nothing was done.
//! - `--token` wins over a stored login, for it was typed.
//! - `--image` wins over a stack.yaml that happens to lie here.
//! - `remove` takes several names, and with a stack file fails when a gateway refuses.
//! - `secret apply` updates a secret that is there, where faas-cli removes and creates it; it fails if one of
//!   them failed.
//! - `generate` writes a function's command as `handler`, which faas-cli loses; `--from-store` honours
//!   `OPENFAAS_STORE`, and `--url`.
//! - `diff` sets beside what is deployed what a deploy would send, environment files and the template's command
//!   with it, in each namespace of the file.
//! - `describe` also shows whether the root filesystem is read-only, and what a server of ours says.
//! - `version --json` succeeds without a gateway, with its part left out; no other host is ever asked.
//! - `invoke` sends no body with GET and HEAD; for a function that asks for a token it gets one for the password too.
//! - `login` keeps tokens: `--token`, `--token-stdin`, `--as-token`.
//! - `FAAS_DEBUG=1` shows requests on standard error, and neither secrets' values nor what is sent to functions.
//! - `build` and its kin show what builders say and how far they are on standard error, results alone on standard output;
//!   `push` and `publish` do all of what they are asked before they fail. `new --list` names the templates that this
//!   program carries too. `template pull` speaks HTTPS, SSH, git's own protocol and files, not bare HTTP, and takes no
//!   links that lead out of a template.
//! - `up` without a flag about a stack file starts a server.
//! - `${V:?word}` and `${V:+word}` are faults; in faas-cli they are silently defaults.

/// One recording where ours differs.
pub struct Difference {
    /// The recording.
    pub name: &'static str,
    /// Why.
    pub reason: &'static str,
    /// Our exit code.
    pub exit: i64,
    /// Our standard output, with the placeholders of the recordings.
    pub stdout: &'static str,
    /// A part of our standard error.
    pub stderr: &'static str,
    /// Our requests, if they are others.
    pub requests: Option<&'static [&'static str]>,
}

const ERRORS: &str = "Errors go to standard error and say what to do: who reads standard output must not \
                      take one for a result.";

const FAILURES: &str = "A failure ends with 1, and its error goes to standard error: scripts must notice \
                        that a secret is not the one they meant.";

const NOT_LOGGED_IN: &str = "not logged in at {gateway}; run `pinnace login --gateway {gateway}`";

const fn error(name: &'static str, stdout: &'static str, stderr: &'static str) -> Difference {
    Difference { name, reason: ERRORS, exit: 1, stdout, stderr, requests: None }
}

/// The differences.
pub const ALL: &[Difference] = &[
    Difference {
        name: "build-shrinkwrap",
        reason: "No colours, which would go into files too, and no times of what takes none.",
        exit: 0,
        stdout: "echo shrink-wrapped to build/echo\n",
        stderr: "",
        requests: None,
    },
    Difference {
        name: "deploy-created-201",
        reason: "201 says that the function was created: no failure.",
        exit: 0,
        stdout: "\nDeployed. 201 Created.\nURL: {gateway}/function/echo\n\n",
        stderr: "",
        requests: None,
    },
    error(
        "deploy-invalid-name",
        "",
        "{gateway} answers 400 Bad Request: validation failed: service: (Not_Valid)",
    ),
    error(
        "deploy-missing-secret",
        "",
        "{gateway} answers 400 Bad Request: unable to fetch secrets: secret \"nope\" not found",
    ),
    error(
        "deploy-no-update-existing",
        "",
        "{gateway} answers 409 Conflict: function echo already exists in namespace openfaas-fn",
    ),
    error(
        "deploy-server-down",
        "",
        "no gateway answers at http://127.0.0.1:1; start one with `pinnace up`",
    ),
    Difference {
        name: "deploy-stack-url",
        reason: "Where a stack file was read from is no result, and would spoil what `generate` writes: it \
                 goes to standard error.",
        exit: 0,
        stdout: "Deploying: echo.\n\nDeployed. 202 Accepted.\nURL: {gateway}/function/echo\n\n",
        stderr: "Parsed: {files}/app.yml\n",
        requests: None,
    },
    Difference {
        name: "diff",
        reason: "Every gateway adds the label faas_function: it is no drift. The verdict goes to standard \
                 error.",
        exit: 1,
        stdout: "echo\n  \
                 stack.yaml                               | deployed                                \n  \
                 -----------------------------------------+-----------------------------------------\n  \
                 - annotation.stage: yaml                 |                                         \n  \
                 - env.stage:        yaml                 |                                         \n  \
                 - label.stage:      yaml                 |                                         \n\n",
        stderr: "1 of 1 functions differ from the stack file",
        requests: None,
    },
    Difference {
        name: "generate-knative",
        reason: "The same YAML with other quotes: a library writes it.",
        exit: 0,
        stdout: KNATIVE,
        stderr: "",
        requests: None,
    },
    error(
        "invoke-async-not-found",
        "",
        "{gateway} queues no calls, or has no such function; leave out --async",
    ),
    Difference {
        name: "invoke-bad-method",
        reason: "HEAD and OPTIONS are sent, as functions may answer them; the recorded client does nothing \
                 and ends with 0.",
        exit: 0,
        stdout: "",
        stderr: "",
        requests: Some(&["HEAD /function/echo.openfaas-fn"]),
    },
    error(
        "invoke-function-fails",
        "",
        "exit status 1\nerror: calling failing: it answers 500 Internal Server Error",
    ),
    Difference {
        name: "invoke-not-logged-in",
        reason: "Standard output is the function's answer and nothing else; calls need no login.",
        exit: 0,
        stdout: "hello",
        stderr: "",
        requests: None,
    },
    error("list-not-logged-in", "", NOT_LOGGED_IN),
    error(
        "list-server-error",
        "",
        "{gateway} answers 500 Internal Server Error: unable to reach the provider",
    ),
    error("list-wrong-token", "", NOT_LOGGED_IN),
    Difference {
        name: "login-password",
        reason: "Warnings go to standard error.",
        exit: 0,
        stdout: "Calling the OpenFaaS server to validate the credentials...\n\
                 credentials saved for admin {gateway}\n",
        stderr: "others on this host can read a password on the command line; use --password-stdin",
        requests: None,
    },
    error("logs-not-found", "", "there is no function nope at {gateway}; `pinnace list` shows"),
    error("logs-not-logged-in", "", NOT_LOGGED_IN),
    error(
        "namespace-get-not-found",
        "",
        "there is no namespace nope at {gateway}; `pinnace namespace list` shows",
    ),
    error("namespace-list-not-json", "", "{gateway} answers 501 Not Implemented: not implemented"),
    error(
        "namespace-remove-not-found",
        "Deleting Namespace: nope\n",
        "there is no namespace nope at {gateway}",
    ),
    error(
        "ready-function-zero",
        "[1/2] Waiting for function echo\n[2/2] Waiting for function echo\n",
        "function echo is not ready after 40ms; `pinnace describe echo` may say why",
    ),
    Difference {
        name: "new-append",
        reason: "No picture, whose colours would go into files too.",
        exit: 0,
        stdout: "Folder: other created.\nFunction created in folder: other\nStack file updated: stack.yaml\n",
        stderr: "",
        requests: None,
    },
    error("new-folder-exists", "", "folder other already exists; --handler names another"),
    Difference {
        name: "secret-create-exists",
        reason: FAILURES,
        exit: 1,
        stdout: "Creating secret: api-key.\n",
        stderr: "there is one of that name; --replace gives it the new value",
        requests: None,
    },
    Difference {
        name: "secret-remove-204",
        reason: "204 is a success that the API's own description promises.",
        exit: 0,
        stdout: "Removed.. OK.\n",
        stderr: "",
        requests: None,
    },
    Difference {
        name: "secret-update-not-found",
        reason: FAILURES,
        exit: 1,
        stdout: "Updating secret: nope\n",
        stderr: "there is no secret nope at {gateway}; `pinnace secret list` shows",
        requests: None,
    },
    Difference {
        name: "up-skip-build",
        reason: "A function that is not built has its name said; no colours and no times of workers that had nothing \
                 to do.",
        exit: 0,
        stdout: "Skipping build of: echo.\nDeploying: echo.\n\nDeployed. 202 Accepted.\nURL: {gateway}/function/echo\n\n",
        stderr: "",
        requests: None,
    },
    Difference {
        name: "version",
        reason: "No picture, whose colours would go into files too; the versions are ours.",
        exit: 0,
        stdout: "CLI:\n  commit:  {revision}\n  version: {version}\n\nGateway\n uri:     {gateway}\n \
                 version: 0.27.0\n sha:     89abcdef0123456789abcdef0123456789abcdef\n\n\nProvider\n \
                 name:          mock\n orchestration: none\n version:       0.1.0\n \
                 sha:           0123456789abcdef0123456789abcdef01234567\n",
        stderr: "",
        requests: None,
    },
    Difference {
        name: "version-json",
        reason: "The client's version is ours; the same keys stand in another order.",
        exit: 0,
        stdout: VERSION_JSON,
        stderr: "",
        requests: None,
    },
];

const KNATIVE: &str = r#"---
apiVersion: serving.knative.dev/v1
kind: Service
metadata:
  name: echo
  namespace: dev
  annotations:
    com.openfaas.health.http.path: /ready
    schedule: "*/5 * * * *"
    topic: orders
spec:
  template:
    spec:
      containers:
        - image: {image}
          env:
            - name: b
              value: two
            - name: c
              value: three
            - name: stage
              value: test
          volumeMounts:
            - name: api-key
              mountPath: /var/openfaas/secrets/api-key
              readOnly: true
            - name: db-password
              mountPath: /var/openfaas/secrets/db-password
              readOnly: true
      volumes:
        - name: api-key
          secret:
            secretName: api-key
        - name: db-password
          secret:
            secretName: db-password

"#;

const VERSION_JSON: &str = r#"{
  "cli": {
    "commit": "{revision}",
    "version": "{version}"
  },
  "gateway": {
    "sha": "89abcdef0123456789abcdef0123456789abcdef",
    "uri": "{gateway}",
    "version": "0.27.0"
  },
  "provider": {
    "name": "mock",
    "orchestration": "none",
    "sha": "0123456789abcdef0123456789abcdef01234567",
    "version": "0.1.0"
  }
}
"#;
