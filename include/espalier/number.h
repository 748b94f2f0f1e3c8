/* number.h - numbers as text. */
#ifndef ESPALIER_NUMBER_H
#define ESPALIER_NUMBER_H

enum { REAL_TEXT_MAX = 32 };

/** The shortest text of 15 to 17 significant digits that reads back as the same double; it always
 *  looks like a real ("1.0", "5e-09"), and is "inf", "-inf" or "nan" where there is none. */
void real_text(double value, char text[static REAL_TEXT_MAX]);

#endif
