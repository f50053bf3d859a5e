#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace attune::byte_level {

/// The printable character that stands for a byte: itself for 0x21-0x7E, 0xA1-0xAC and 0xAE-0xFF,
/// for the other 68 the characters from U+0100 on. Reference: Radford et al. 2019, "Language Models
/// are Unsupervised Multitask Learners" (GPT-2).
char32_t to_char(uint8_t byte);
/// The byte that a character stands for; -1 when it stands for none.
int to_byte(char32_t c);
/// Every byte as its character, in UTF-8.
std::string encode(std::string_view bytes);

}  // namespace attune::byte_level
