// Package stream is bulk work on segments: the segment workers, which seal and open rows of segments over channels, and sealed streams, self-contained files
// made of segments in wire form, that travel through pipes, tapes and object storage (FORMAT.md section 15).
//
//	io.Writer ─> Writer ── segments ──> Encrypter.Run ──> header, wire segments ──> any io.Writer
//	io.Reader <─ Reader <─ segments ── Decrypter.Run <── header, wire segments <── any io.Reader
//	ReadAt    <─ ReaderAt <─ the frames asked for <────── any io.ReaderAt with a size
//
// A stream is opened by any of its key slots: a passphrase, a key file, or age recipients; they are those of a vault (package vault). Its header has a MAC, and
// each frame is bound to stream, segment, place and to whether its segment is the last. So a stream that was cut, put into another order, mixed with
// another one, changed, or continued is refused, with the byte where that is so (*Error). What a Reader has returned before is authentic and in its place.
//
// What it does not do: say who made a stream. Whoever knows a recipient, or may have the passphrase, can make one. Nothing hides how long a stream is.
//
// Memory is bounded by the workers and the segment size, 64 MiB and a few segments at most, whatever the length of the stream.
//
// # The files, in reading order
//
//	writer.go reader.go readerat.go   streams, as io.Writer, io.Reader and io.ReaderAt
//	header.go recipient.go            the header of a stream, and who may open it
//	worker.go run.go                  the segment workers, and what they have in common
//	errors.go                         the classes of errors
//
// Read next: package container, for the process functions of one segment.
package stream
