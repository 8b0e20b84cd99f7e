"use strict";
// window.nadirSha256(blob): its SHA-256 in hex (FIPS 180-4), read block by block. The browser's own takes the whole file into memory, and is not there without HTTPS.
(() => {
  const BLOCK = 4 << 20;
  const primes = [];
  for (let n = 2; primes.length < 64; n++) if (primes.every((prime) => n % prime)) primes.push(n);
  const fraction = (value) => ((value % 1) * 2 ** 32) | 0;
  const K = Int32Array.from(primes, (prime) => fraction(Math.cbrt(prime)));
  const START = Int32Array.from(primes.slice(0, 8), (prime) => fraction(Math.sqrt(prime)));

  function compress(state, bytes, length, words) {
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    for (let at = 0; at < length; at += 64) {
      for (let i = 0; i < 16; i++) words[i] = view.getInt32(at + 4 * i);
      for (let i = 16; i < 64; i++) {
        const x = words[i - 15], y = words[i - 2];
        const s0 = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3);
        const s1 = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10);
        words[i] = (words[i - 16] + s0 + words[i - 7] + s1) | 0;
      }
      let a = state[0], b = state[1], c = state[2], d = state[3], e = state[4], f = state[5], g = state[6], h = state[7];
      for (let i = 0; i < 64; i++) {
        const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
        const t1 = (h + s1 + ((e & f) ^ (~e & g)) + K[i] + words[i]) | 0;
        const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
        const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
        h = g; g = f; f = e; e = (d + t1) | 0; d = c; c = b; b = a; a = (t1 + t2) | 0;
      }
      state[0] += a; state[1] += b; state[2] += c; state[3] += d; state[4] += e; state[5] += f; state[6] += g; state[7] += h;
    }
  }

  window.nadirSha256 = async (blob) => {
    const state = START.slice(), words = new Int32Array(64), whole = blob.size - (blob.size % 64);
    for (let at = 0; at < whole; at += BLOCK) {
      const bytes = new Uint8Array(await blob.slice(at, Math.min(whole, at + BLOCK)).arrayBuffer());
      compress(state, bytes, bytes.length, words);
    }
    const rest = new Uint8Array(await blob.slice(whole).arrayBuffer()), last = new Uint8Array(rest.length < 56 ? 64 : 128);
    last.set(rest);
    last[rest.length] = 0x80;
    new DataView(last.buffer).setBigUint64(last.length - 8, BigInt(blob.size) * 8n);
    compress(state, last, last.length, words);
    return Array.from(state, (value) => (value >>> 0).toString(16).padStart(8, "0")).join("");
  };
})();
