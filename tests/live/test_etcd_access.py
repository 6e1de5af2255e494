"""Etcd members that ask who is there: passwords, and TLS with certificates on both sides."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from budao.adapters.etcd import EtcdStore, Tls
from budao.adapters.stores import open_store
from budao.aio import Store, watching
from budao.store import Batch, Put, Span, StoreAway, StoreDenied, Txn
from tests.live.etcd_server import Cluster

SECRET = "open sesame"
OTHER_SECRET = "close sesame"
ALL = Span.prefix("shop/")


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Cluster]:
    """One member with root, who may do everything, and ann, who may use what begins with "shop/"."""
    with Cluster(tmp_path) as cluster:
        cluster.ctl("user", "add", f"root:{SECRET}")
        cluster.ctl("role", "add", "root")
        cluster.ctl("user", "grant-role", "root", "root")
        cluster.ctl("user", "add", f"ann:{OTHER_SECRET}")
        cluster.ctl("role", "add", "keeper")
        cluster.ctl("role", "grant-permission", "--prefix=true", "keeper", "readwrite", "shop/")
        cluster.ctl("user", "grant-role", "ann", "keeper")
        cluster.ctl("auth", "enable")
        yield cluster


async def use(store: Store) -> Batch:
    """Reads, writes, watches and renews, and answers what the watch saw first."""
    start = (await store.read(ALL)).revision
    async with watching(store, ALL, after=start) as batches:
        lease = await store.grant(30.0)
        await store.commit(Txn(then=(Put("shop/a", b"1", lease.id),)))
        seen = await anext(batches)
        assert (await store.keep_alive(lease.id)).id == lease.id
        assert (await store.look_up(lease.id)).keys == ("shop/a",)
        await store.revoke(lease.id)
        assert (await anext(batches)).changes[0].entry is None
        return seen


async def denied(store: EtcdStore, span: Span = ALL) -> None:
    async with store:
        for work in (store.read(span), store.commit(Txn(then=(Put(span.start, b""),)))):
            with pytest.raises(StoreDenied) as caught:
                await work
            assert SECRET not in f"{caught.value!r} {caught.value} {caught.value.__cause__!r}"
        with pytest.raises(StoreDenied):
            async with watching(store, span, after=0) as batches:
                await asyncio.wait_for(anext(batches), 30.0)


def test_a_password_is_asked_for_and_never_shown(guarded: Cluster) -> None:
    async def story() -> None:
        async with EtcdStore(guarded.endpoints, username="ann", password=OTHER_SECRET) as store:
            assert (await use(store)).changes[0].key == "shop/a"
            assert "sesame" not in f"{store!r} {store.name}"
        await denied(EtcdStore(guarded.endpoints))
        await denied(EtcdStore(guarded.endpoints, username="ann", password=SECRET))
        await denied(EtcdStore(guarded.endpoints, username="ann", password=OTHER_SECRET), Span.prefix("bank/"))

    asyncio.run(story())


def test_a_token_that_is_forgotten_is_asked_for_again(guarded: Cluster) -> None:
    (member,) = guarded.members

    async def story() -> None:
        store = open_store(f"etcd://ann@{member.endpoint}", password=OTHER_SECRET)
        start = (await store.read(ALL)).revision
        async with watching(store, ALL, after=start) as batches:
            await store.commit(Txn(then=(Put("shop/a", b"1"),)))
            assert (await anext(batches)).revision == start + 1
            # Simple tokens live in the member's memory.
            await asyncio.to_thread(member.kill)
            guarded.start(member)
            while (await store.read(ALL)).entries[0].value != b"2":  # etcd takes a moment to start
                with suppress(StoreAway):
                    await store.commit(Txn(then=(Put("shop/a", b"2"),)))
            assert (await asyncio.wait_for(anext(batches), 30.0)).revision == start + 2
        await use(store)
        await store.aclose()

    asyncio.run(story())


def test_a_password_for_a_cluster_that_asks_for_none_is_no_trouble(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        async with EtcdStore(cluster.endpoints, username="ann", password=SECRET) as store:
            await use(store)

    with Cluster(tmp_path) as cluster:
        asyncio.run(story(cluster))


class Authority:
    """Signs certificates into files."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self.file = self._write(name, self._signed(self._name, self._key, is_authority=True), self._key)[0]

    def certificate(self, name: str) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        return self._write(name, self._signed(subject, key, is_authority=False), key)

    def _signed(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, is_authority: bool) -> x509.Certificate:
        now = datetime.now(UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        )
        return made.sign(self._key, hashes.SHA256())

    def _write(self, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> tuple[Path, Path]:
        pem = serialization.Encoding.PEM
        files = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        files[0].write_bytes(certificate.public_bytes(pem))
        files[1].write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        return files


def test_tls_is_spoken_with_certificates_on_both_sides(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    server, client, stranger = ours.certificate("server"), ours.certificate("client"), theirs.certificate("stranger")
    more = (
        *("--cert-file", str(server[0]), "--key-file", str(server[1])),
        *("--trusted-ca-file", str(ours.file), "--client-cert-auth"),
    )
    credentials = grpc.ssl_channel_credentials(ours.file.read_bytes(), client[1].read_bytes(), client[0].read_bytes())

    async def away(endpoints: list[str], tls: Tls | None) -> None:
        async with EtcdStore(endpoints, tls=tls, timeout_s=1.0) as store:
            with pytest.raises(StoreAway) as caught:
                await store.commit(Txn(then=(Put("shop/a", b""),)))
            assert not caught.value.may_have_taken_effect

    async def story(endpoints: list[str]) -> None:
        url = f"etcds://{endpoints[0]}?authority={ours.file}&certificate={client[0]}&key={client[1]}"
        store = open_store(url)
        await use(store)
        await store.aclose()
        await away(endpoints, None)
        await away(endpoints, Tls(authority=ours.file.read_bytes()))
        await away(endpoints, Tls(authority=theirs.file.read_bytes()))
        shown = {"certificate": stranger[0].read_bytes(), "key": stranger[1].read_bytes()}
        tls = Tls(authority=ours.file.read_bytes(), **shown)
        assert "PRIVATE" not in repr(tls)
        await away(endpoints, tls)

    with Cluster(tmp_path, more=more, scheme="https", credentials=credentials) as cluster:
        asyncio.run(story(cluster.endpoints))
