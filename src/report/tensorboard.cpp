#include "report/tensorboard.h"

#include <fcntl.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "base/error.h"
#include "base/hash.h"
#include "base/text.h"

namespace attune {

namespace {

template <class T>
void put_fixed(std::string& out, T bits) {
  for (size_t i = 0; i < sizeof(T); ++i) out.push_back(static_cast<char>(bits >> (8 * i) & 0xff));
}

void put_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>((value & 0x7f) | 0x80));
  out.push_back(static_cast<char>(value));
}

// Wire types of protocol buffers; field numbers here stay below 16, so that a tag is one byte.
enum class Wire { Varint = 0, Fixed64 = 1, Bytes = 2, Fixed32 = 5 };

void put_tag(std::string& out, int field, Wire wire) {
  put_varint(out, static_cast<uint64_t>(field << 3 | static_cast<int>(wire)));
}

void put_bytes(std::string& out, int field, std::string_view bytes) {
  put_tag(out, field, Wire::Bytes);
  put_varint(out, bytes.size());
  out += bytes;
}

void put_double(std::string& out, int field, double value) {
  put_tag(out, field, Wire::Fixed64);
  put_fixed(out, std::bit_cast<uint64_t>(value));
}

std::string host_name() {
  char name[256] = {};
  if (::gethostname(name, sizeof name - 1) != 0 || name[0] == '\0') return "localhost";
  return name;
}

}  // namespace

std::string tfrecord(std::string_view payload) {
  std::string record;
  put_fixed(record, static_cast<uint64_t>(payload.size()));
  put_fixed(record, masked_crc32c(record));
  record += payload;
  put_fixed(record, masked_crc32c(payload));
  return record;
}

std::string version_event(double wall_time) {
  std::string event;
  put_double(event, 1, wall_time);
  put_bytes(event, 3, "brain.Event:2");
  return event;
}

std::string scalar_event(std::string_view tag, int64_t step, double value, double wall_time) {
  std::string point;
  put_bytes(point, 1, tag);
  put_tag(point, 2, Wire::Fixed32);
  put_fixed(point, std::bit_cast<uint32_t>(static_cast<float>(value)));
  std::string summary;
  put_bytes(summary, 1, point);
  std::string event;
  put_double(event, 1, wall_time);
  put_tag(event, 2, Wire::Varint);
  put_varint(event, static_cast<uint64_t>(step));
  put_bytes(event, 5, summary);
  return event;
}

EventWriter::EventWriter(const std::string& directory) {
  const double now =
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  const std::string stem =
      format("{}/events.out.tfevents.{:010}.{}.{}", directory, static_cast<int64_t>(now),
             host_name(), static_cast<int64_t>(::getpid()));
  for (int n = 0; fd_ < 0; ++n) {
    path_ = format("{}.{}", stem, n);
    fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0666);
    if (fd_ < 0 && errno != EEXIST)
      fail(ErrorCode::Io, "creating {}: {}", path_, std::strerror(errno));
  }
  pending_ = tfrecord(version_event(now));
  try {
    flush();
  } catch (...) {
    ::close(fd_);
    throw;
  }
}

EventWriter::~EventWriter() {
  try {
    flush();
  } catch (const Error&) {
    // A destructor has nobody to tell; the curves are not worth ending the program.
  }
  ::close(fd_);
}

void EventWriter::scalar(std::string_view tag, int64_t step, double value, double wall_time) {
  pending_ += tfrecord(scalar_event(tag, step, value, wall_time));
}

void EventWriter::flush() {
  size_t done = 0;
  while (done < pending_.size()) {
    const ssize_t put = ::write(fd_, pending_.data() + done, pending_.size() - done);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) {
      const int error = errno;
      pending_.erase(0, done);
      fail(ErrorCode::Io, "writing {}: {}", path_, std::strerror(error));
    }
    done += static_cast<size_t>(put);
  }
  pending_.clear();
}

}  // namespace attune
