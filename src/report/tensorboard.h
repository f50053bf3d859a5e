#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace attune {

/// Frames a payload as a TFRecord: u64 length, u32 masked CRC-32C of those 8 bytes, payload, u32
/// masked CRC-32C of the payload; all little-endian.
std::string tfrecord(std::string_view payload);
/// The event that opens every file: Event{1: wall_time (double), 3: "brain.Event:2"}, in protocol
/// buffer encoding.
std::string version_event(double wall_time);
/// One point: Event{1: wall_time, 2: step (varint), 5: Summary{1: Value{1: tag, 2: simple_value
/// (float)}}}.
std::string scalar_event(std::string_view tag, int64_t step, double value, double wall_time);

/// A TensorBoard event file `events.out.tfevents.<unix seconds, 10 digits>.<host>.<process
/// id>.<n>`; n counts from 0 until the name is free. A reader tolerates a truncated tail.
class EventWriter {
 public:
  /// Creates a new file in an existing folder. Errors: Io.
  explicit EventWriter(const std::string& directory);
  ~EventWriter();
  EventWriter(const EventWriter&) = delete;
  EventWriter& operator=(const EventWriter&) = delete;

  /// Adds a point, which readers see after flush(). wall_time: unix time in seconds.
  void scalar(std::string_view tag, int64_t step, double value, double wall_time);
  /// Hands all points to the system, without waiting for the disk; call it after every logged step.
  /// Also done by the destructor. Errors: Io.
  void flush();
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  int fd_ = -1;
  std::string pending_;  // records not written yet
};

}  // namespace attune
