package repo

import "hash/crc32"

// CombineCRC returns the CRC-32C of A followed by B from the CRC-32C of each
// and the length of B in bytes (0 and up), so that the pieces of one file can
// be read or written in any order and by several workers.
//
// A CRC is linear: crc(A·B) = shift(crc(A), 8·len(B)) xor crc(B), where shift
// by n bits is multiplication by x^n modulo the polynomial. x^n is a product
// of squares of squares of x, so the cost grows with the logarithm of the
// length.
func CombineCRC(a, b uint32, lenB int64) uint32 {
	for k, n := 3, uint64(lenB); n > 0; k, n = k+1, n>>1 {
		if n&1 != 0 {
			a = crcTimes(a, crcSquares[k])
		}
	}
	return a ^ b
}

// crcSquares[k] is x^(2^k) modulo the Castagnoli polynomial.
var crcSquares = func() (t [67]uint32) {
	t[0] = 1 << 30 // reversed: the highest bit is x^0
	for k := 1; k < len(t); k++ {
		t[k] = crcTimes(t[k-1], t[k-1])
	}
	return t
}()

// crcTimes multiplies two polynomials over GF(2) modulo the CRC's polynomial,
// all in reversed bit order.
func crcTimes(a, b uint32) uint32 {
	var p uint32
	for ; a != 0; a <<= 1 {
		if a&(1<<31) != 0 {
			p ^= b
		}
		odd := b & 1
		b >>= 1
		if odd != 0 {
			b ^= crc32.Castagnoli
		}
	}
	return p
}
