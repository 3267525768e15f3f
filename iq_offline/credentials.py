"""Credentials in URLs and messages: what is printed or stored has none of them.

A URL's identity is `public_url`: it has neither user nor password, and no parameter that gives access. A parameter
that may be a credential, or may tell one file from another, is kept as a short hash. Public URLs stay as they are.
"""

import hashlib
import re
from urllib.parse import unquote, unquote_plus

MASK = "***"
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>|]+")
PARAMETER = re.compile(r"(?P<before>[?&]?)(?<![\w.%-])(?P<name>[\w.%-]{1,100})=(?P<value>[^&\s'\"),]+)")
TOKENS = re.compile(
    r"\b(?:hf_\w{16,}|gh[pousr]_\w{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|xox[abpr]-[\w-]{10,}|AKIA[0-9A-Z]{16}"
    r"|eyJ[\w-]+\.[\w-]+\.[\w-]+|sk-[\w-]{20,}|dapi[0-9a-f]{32})"
    r"|(?<=Bearer )\S+|(?<=Basic )[\w+/=]{8,}"
)
"""Tokens that are known by their form: Hugging Face, GitHub, GitLab, Slack, AWS, JWT, OpenAI, Databricks."""
SECRET_WORDS = {
    *("token", "secret", "password", "passwd", "passphrase", "passcode", "pwd", "signature", "sig", "credential"),
    *("credentials", "auth", "authorization", "bearer", "apikey", "accesskey", "jwt", "oauth", "hmac"),
}
SECRET_ENDINGS = ("token", "secret", "password", "passwd", "signature", "apikey", "accesskey", "accesskeyid")
SIGNED_PREFIXES = ("x-amz-", "x-goog-", "x-oss-", "x-ms-")
SIGNED_NAMES = {"expires", "policy", "key-pair-id", "googleaccessid", "accesskeyid"}
"""Of signed URLs of clouds: each changes whenever the URL is signed again."""
SHARED_ACCESS = {"sv", "se", "sp", "sr", "st", "ss", "srt", "spr", "sip", "skoid", "sktid", "skt", "ske", "sks", "skv"}
"""Azure's companions of `sig`."""
PERHAPS_SECRET = {
    *("key", "code", "pass", "pw", "pin", "otp"),
    *("session", "sessionid", "sid", "cookie", "private", "access"),
}
PUBLIC_NAMES = {
    *("version", "versionid", "revision", "rev", "ref", "commit", "generation", "sha256", "sha1", "md5"),
    "viewstatesharekey",  # names a saved view of MLflow's page
}
LONG_VALUE = 20
"""Characters from which on a value of letters and digits may be a token, whatever its name."""
MIN_SECRET = 4
"""Shorter values are not searched for in messages: they occur by chance."""


def public_url(url: str) -> str:
    """The URL without its credentials, which names the same thing; what is no URL is returned as it is."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.partition("+")[0] == "file" or scheme in {"sqlite", "sqlite+pysqlite"}:
        return url
    rest, _, fragment = rest[len(_user(rest)) :].partition("#")
    place, _, query = rest.partition("?")
    shown = f"{scheme}://{TOKENS.sub(MASK, place)}"
    for mark, parameters in (("?", query), ("#", fragment)):
        parts = [part for part in parameters.split("&") if part]
        signed = any(part.partition("=")[0].lower() == "sig" for part in parts)
        public = (_public_parameter(part, shared_access=signed) for part in parts)
        if kept := "&".join(part for part in public if part is not None):
            shown += mark + kept
    return shown


def public_name(dataset: str) -> str:
    """What a dataset is stored under: a URL without its credentials, an id or a path as it is."""
    return public_url(dataset) if "://" in dataset else dataset


def masked(text: str, *urls: str) -> str:
    """A message without credentials: of the URLs in it, and those of `urls` wherever they stand in it."""
    for secret in sorted({secret for url in urls for secret in _secrets(url)}, key=len, reverse=True):
        text = text.replace(secret, MASK)
    text = URL.sub(lambda found: public_url(found[0]), text)
    return TOKENS.sub(MASK, PARAMETER.sub(_masked_parameter, text))


def _user(rest: str) -> str:
    """User and password at the start of the part after `://`, with their `@`; also where `/?#` in them stand as is."""
    authority = re.match(r"[^/?#]*", rest)
    assert authority is not None
    if "@" in authority[0]:
        return rest[: authority[0].rindex("@") + 1]
    _, colon, port = authority[0].partition(":")
    broken = colon and not authority[0].startswith("[") and not port.isdigit() and "@" in rest
    return rest[: rest.rindex("@") + 1] if broken else ""


def _public_parameter(part: str, *, shared_access: bool) -> str | None:
    """A parameter as it may be shown; None for one that gives access, which is left out."""
    name, equals, value = part.partition("=")
    if not equals:
        return TOKENS.sub(MASK, part)
    own = name.rpartition("?")[2]  # of the first parameter of a fragment that has a path of its own
    if _is_secret(own) or (shared_access and own.lower() in SHARED_ACCESS):
        return None
    if value.startswith(MASK) or not _may_be_secret(own, value):
        return f"{name}={TOKENS.sub(MASK, value)}"
    return f"{name}={MASK}{hashlib.sha256(value.encode(errors='surrogateescape')).hexdigest()[:8]}"


def _masked_parameter(found: re.Match[str]) -> str:
    name, value, in_url = found["name"], found["value"], bool(found["before"])
    hidden = _is_secret(name) or (in_url and _may_be_secret(name, value))
    return f"{found['before']}{name}={MASK}" if hidden and not value.startswith(MASK) else found[0]


def _words(name: str) -> set[str]:
    """`accessToken`, `access_token` and `X-Access-Token` in words."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", unquote_plus(name))}


def _is_secret(name: str) -> bool:
    plain = unquote_plus(name).lower()
    joined = re.sub(r"[^a-z]", "", plain)
    return (
        plain.startswith(SIGNED_PREFIXES)
        or plain in SIGNED_NAMES
        or joined.endswith(SECRET_ENDINGS)
        or bool(_words(name) & SECRET_WORDS)
    )


def _may_be_secret(name: str, value: str) -> bool:
    if unquote_plus(name).lower() in PUBLIC_NAMES:
        return False
    plain = unquote_plus(value)
    mixed = re.search(r"[0-9]", plain) and re.search(r"[A-Za-z]", plain) and re.fullmatch(r"[\w+/=.~:-]+", plain)
    return bool(_words(name) & PERHAPS_SECRET) or (len(plain) >= LONG_VALUE and bool(mixed))


def _secrets(url: str) -> set[str]:
    """The credentials in a URL, as they are written and as they are meant."""
    rest = url.partition("://")[2]
    user = _user(rest)
    name, _, password = user.rstrip("@").partition(":")
    found = {password or name}
    for part in re.split(r"[?&#]", rest[len(user) :])[1:]:
        key, equals, value = part.partition("=")
        if equals and (_is_secret(key) or _may_be_secret(key, value)):
            found.add(value)
    return {form for value in found for form in (value, unquote(value)) if len(form) >= MIN_SECRET}
