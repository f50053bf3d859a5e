#pragma once
#include <string>

#include "data/records.h"
#include "signal/image.h"

namespace attune {

/// The file that a column of a row names: beside the file that holds the row, else from here.
std::string file_of(const Record& record, const std::string& column);
/// The PNG or JPEG file that it names. Errors: as read_image and text_of, with the row before them.
Image image_of(const Record& record, const std::string& column);

}  // namespace attune
